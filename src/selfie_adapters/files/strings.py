"""Many short strings in little memory: one of three letters takes 11 bytes instead of 60."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import overload


class Strings(Sequence[str]):
    """Strings that only grow in number, as UTF-8 in one buffer. What is read are copies."""

    def __init__(self, strings: Iterable[str] = ()) -> None:
        self._buffer = bytearray()
        self._ends = array("q")
        self.extend(strings)

    def append(self, string: str) -> None:
        self._buffer += string.encode()
        self._ends.append(len(self._buffer))

    def extend(self, strings: Iterable[str]) -> None:
        for one in strings:
            self.append(one)

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, position: int) -> str: ...
    @overload
    def __getitem__(self, position: slice) -> list[str]: ...
    def __getitem__(self, position: int | slice) -> str | list[str]:
        if isinstance(position, slice):
            return [self[one] for one in range(*position.indices(len(self)))]
        if position < 0:
            position += len(self)
        if not 0 <= position < len(self):
            raise IndexError(position)
        start = self._ends[position - 1] if position else 0
        return self._buffer[start : self._ends[position]].decode()

    def __iter__(self) -> Iterator[str]:
        start = 0
        for end in self._ends:
            yield self._buffer[start:end].decode()
            start = end
