"""Words, singular forms, and heads of nouns."""

from __future__ import annotations

import pytest

from selfie_adapters.sources.topics.noun_forms import (
    head_words,
    shared_keys,
    singular_forms,
    words_of,
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Shoe-Store", ["shoe", "store"]),
        ("St. John's_wort", ["st", "johns", "wort"]),
        ("  CAFÉ\tau lait ", ["café", "au", "lait"]),
        ("ﬁre", ["fire"]),  # a ligature
        ("", []),
        ("-", []),
    ],
)
def test_words(text, words):
    assert words_of(text) == words


@pytest.mark.parametrize(
    ("word", "forms"),
    [
        ("owls", {"owl"}),
        ("acres", {"acre"}),
        ("boxes", {"box", "boxe"}),
        ("ladies", {"lady", "ladie"}),
        ("statesmen", {"statesman"}),
        ("wolves", {"wolf", "wolfe", "wolve"}),
        ("glass", set()),
        ("glasses", {"glass", "glasse"}),
        ("foxes", {"fox", "foxe"}),
        ("axes", {"axe", "axis"}),
        ("men", set()),  # "man" is WordNet's irregular form
        ("as", set()),
        ("owl", set()),
    ],
)
def test_singular_forms(word, forms):
    assert singular_forms(word, {"axes": ("axis",)}) == {word, *forms}


@pytest.mark.parametrize(
    ("text", "heads"),
    [
        ("hardware store", {"store"}),
        ("man of letters", {"letters", "man"}),
        ("man-of-war", {"war", "man"}),
        ("of course", {"course"}),
        ("owl", {"owl"}),
        ("...", set()),
    ],
)
def test_heads(text, heads):
    assert head_words(text) == heads


@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [
        ("shoe store", "hardware stores", True),
        ("shoe-store", "shoestores", True),
        ("acre", "Acres", True),
        ("foot", "feet", True),
        ("man", "men of letters", True),
        ("shoe store", "shoe", False),
        ("glass", "gla", False),
        ("", "", False),
    ],
)
def test_what_shares_a_key(one, other, shared):
    irregular = {"feet": ("foot",), "men": ("man",)}
    assert bool(shared_keys(one, irregular) & shared_keys(other, irregular)) is shared
