"""The elements of a JSON array one after another, without decoding it as a whole.

Small objects take many times their text once they are decoded; even a list of them undecoded
(`msgspec.Raw`) may take more than the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

_TEXT = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
# An object without objects in it, which is what nearly all files have.
_FLAT = re.compile(rb"\s*+(\{(?:[^{}\"]|%b)*+\})\s*+([,\]])" % _TEXT, re.DOTALL)
_EMPTY = re.compile(rb"\[\s*+\]")
_TOKEN = re.compile(rb"%b|[\[\]{},]" % _TEXT, re.DOTALL)


class JsonArray:
    """A JSON array as its text, to go through any number of times."""

    def __init__(self, text: msgspec.Raw) -> None:
        self.text = text

    def __bool__(self) -> bool:
        """Whether there is any element."""
        return _EMPTY.fullmatch(memoryview(self.text)) is None

    def __iter__(self) -> Iterator[bytes]:
        """Each element as it is written. The array has to be valid JSON, as `msgspec.Raw` is."""
        if not self:
            return
        text = memoryview(self.text)
        position, end = 1, b","
        while end == b",":
            if flat := _FLAT.match(text, position):
                element, end, position = flat[1], flat[2], flat.end()
            else:
                start, (position, end) = position, _end(text, position)
                element = bytes(text[start : position - 1]).strip()
            yield element


def _end(text: memoryview, position: int) -> tuple[int, bytes]:
    """Where the element at `position` ends, after the mark that ends it, and that mark."""
    depth = 0
    for token in _TOKEN.finditer(text, position):
        mark = token[0]
        if depth == 0 and mark in b",]":
            return token.end(), mark
        depth += (mark in b"[{") - (mark in b"]}")
    raise ValueError("the array does not end")
