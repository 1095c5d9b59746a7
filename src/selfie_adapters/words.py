"""Strings as they are compared: whole labels, and the words in a text."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

from selfie_adapters.output import JOINERS


def plain(text: str) -> str:
    """`text` as labels and names are compared: letter case and whitespace make no difference."""
    return " ".join(text.casefold().split())


def words_of(text: str) -> list[str]:
    """The words of `text`, in order; letter case and a plural s make no difference."""
    return [word for _, _, word in word_spans(text)]


def word_spans(text: str) -> Iterator[tuple[int, int, str]]:
    """Start, end and comparable form of every word of `text`."""
    start = None
    for end in range(len(text) + 1):
        inside = end < len(text) and _in_word(text[end])
        if inside and start is None:
            start = end
        elif not inside and start is not None:
            word = unicodedata.normalize("NFC", text[start:end]).casefold()
            yield start, end, word.removesuffix("s") if len(word) > 3 else word
            start = None


def _in_word(character: str) -> bool:
    return unicodedata.category(character)[0] in "LNM" or character in JOINERS
