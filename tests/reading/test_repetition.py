from __future__ import annotations

import pytest

from selfie_adapters.reading.plan import PromptToken, TextSoFar

TEXTS = [
    "<|user|>",
    "The",
    " capital",
    " of",
    " France",
    " is",
    " the",
    " E",
    "iffel",
    " owl",
    "s.",
]


def text(texts=TEXTS):
    return TextSoFar([PromptToken(i, i, t, t.startswith("<|")) for i, t in enumerate(texts)])


@pytest.mark.parametrize(
    ("position", "label", "repeats"),
    [
        (5, "the capital of France", True),  # at "is"
        (5, "The Capital", True),  # case aside
        (5, "a capital", False),  # "a" is not in the text
        (5, "Paris", False),
        (4, "France", False),  # its own word
        (4, "capital of France", False),  # with its own word
        (4, "capital", True),
        (2, "France", False),  # comes later
        (7, "Eiffel", False),  # the first part of its own word
        (8, "Eiffel", False),
        (8, "capital of France", True),
        (10, "owl", False),  # the token is the end of that word
        (6, "the", False),  # its own word, though it was there before
        (7, "the", True),
        (5, "user", False),  # a special token holds no words
        (5, "", False),
        (5, "?!", False),
        (10, "capitals of France", True),  # a plural s aside
    ],
)
def test_a_label_repeats_if_all_its_words_were_there_before_its_own(position, label, repeats):
    assert text().repeats(label, position) is repeats


def test_a_character_over_several_tokens_counts_once():
    parts = [PromptToken(0, 0, "a", False)]
    parts += [PromptToken(i, i, "é", False, f"{i}/2") for i in (1, 2)]
    parts += [PromptToken(3, 3, " owl", False)]
    so_far = TextSoFar(parts)
    assert so_far.tokens == 4
    assert so_far.repeats("aé", 3)
    assert not so_far.repeats("aéé", 3)
