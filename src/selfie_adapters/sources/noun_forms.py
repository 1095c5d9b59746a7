"""Forms of a noun: its words, its singular, the head of a compound."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from itertools import pairwise

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


def head_words(text: str) -> set[str]:
    """The last word of a compound, and of "man of letters" also the one before the preposition.

    A single word is its own head; a text without words has none.
    """
    words = words_of(text)
    heads = set(words[-1:])
    for before, word in pairwise(words):
        if word in _COMPLEMENTS:
            heads.add(before)
            break
    return heads


def shared_keys(text: str, irregular: Irregular) -> set[str]:
    """Strings of which two nouns share one if they are forms of one word or have the same head.

    They are the noun in its singular forms, written as one word ("shoe-store", "shoe stores" and
    "shoestore" share a key), and the singular forms of its heads ("shoe store", "hardware store").
    """
    *first, last = words_of(text) or [""]
    keys = {"".join(first) + form for form in singular_forms(last, irregular)}
    for head in head_words(text):
        keys |= singular_forms(head, irregular)
    return keys - {""}
