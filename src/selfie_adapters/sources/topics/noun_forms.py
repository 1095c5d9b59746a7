"""Forms of a noun: its words, its singular, the head of a compound."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

# The endings of English plurals, as `morphy(7WN)` lists them for nouns, with -oes and -ves.
# https://wordnet.princeton.edu/documentation/morphy7wn
PLURAL_ENDINGS = (
    ("s", ""), ("ses", "s"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh"),
    ("men", "man"), ("ies", "y"), ("oes", "o"), ("ves", "f"), ("ves", "fe"),
)  # fmt: skip
_SHORTEST_STEM = 2  # letters
# What a noun's complement begins with: the head of "man of letters" is "man".
_COMPLEMENTS = frozenset("a and at by de for from in la of on the to with".split())

Irregular = Mapping[str, tuple[str, ...]]
"""Singular forms of irregular plurals, such as {"feet": ("foot",)}."""


def words_of(text: str) -> list[str]:
    """The words of `text` without case; hyphens and underscores separate them like whitespace.

    Apostrophes and full stops are removed: "St. John's-wort" has the words st, johns, wort.
    """
    plain = unicodedata.normalize("NFKC", text).casefold()
    return re.sub(r"['’.]", "", plain).replace("-", " ").replace("_", " ").split()


def singular_forms(word: str, irregular: Irregular) -> set[str]:
    """`word` and everything that it may be a plural of; no dictionary is asked.

    The forms of "foxes" are foxes, foxe and fox.
    """
    forms = {word, *irregular.get(word, ())}
    if word.endswith("ss"):
        return forms
    for ending, singular in PLURAL_ENDINGS:
        stem = word.removesuffix(ending)
        if stem != word and len(stem) >= _SHORTEST_STEM:
            forms.add(stem + singular)
    return forms


def _heads(words: list[str]) -> list[int]:
    """Positions of what `head_words` returns."""
    before = next((i for i, word in enumerate(words[1:]) if word in _COMPLEMENTS), None)
    last = [len(words) - 1] if words else []
    return last if before is None else [before, *last]


def head_words(text: str) -> set[str]:
    """The last word of a compound, and of "man of letters" also the one before the preposition.

    A single word is its own head; a text without words has none.
    """
    words = words_of(text)
    return {words[i] for i in _heads(words)}


def noun_forms(text: str, irregular: Irregular, plurals: bool = True) -> set[str]:
    """A noun in its singular forms, each written as one word; empty for a text without words.

    "shoe-store", "Shoe Stores" and "shoestore" have a form in common; so have "men of letters" and
    "man of letters". plurals: False for the noun as it is, without the singular.
    """
    words = words_of(text)
    forms = {"".join(words)} - {""}
    for i in _heads(words) if plurals else []:
        for singular in singular_forms(words[i], irregular):
            forms.add("".join([*words[:i], singular, *words[i + 1 :]]))
    return forms


def shared_keys(text: str, irregular: Irregular) -> set[str]:
    """Strings of which two nouns share one if they are forms of one word or have the same head.

    They are `noun_forms`, and the singular forms of the heads ("shoe store", "hardware store").
    """
    keys = noun_forms(text, irregular)
    for head in head_words(text):
        keys |= singular_forms(head, irregular)
    return keys
