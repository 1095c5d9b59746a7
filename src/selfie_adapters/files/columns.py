"""Many small values in columns, which take a fraction of the memory of objects."""

from __future__ import annotations

from abc import abstractmethod
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar, overload

Value = TypeVar("Value")


class Columns(Sequence[Value]):
    """A sequence whose values are made when they are read: what is read are copies."""

    @abstractmethod
    def _at(self, position: int) -> Value:
        """The value at a position from 0 to len - 1."""

    @overload
    def __getitem__(self, position: int) -> Value: ...
    @overload
    def __getitem__(self, position: slice) -> list[Value]: ...
    def __getitem__(self, position: int | slice) -> Value | list[Value]:
        if isinstance(position, slice):
            return [self._at(one) for one in range(*position.indices(len(self)))]
        if not -len(self) <= position < len(self):
            raise IndexError(position)
        return self._at(position % len(self))

    def __add__(self, other: Sequence[Value]) -> list[Value]:
        """A list, as of two lists."""
        return [*self, *other]

    def __radd__(self, other: Sequence[Value]) -> list[Value]:
        return [*other, *self]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(
            one == another for one, another in zip(self, other, strict=True)
        )


class Strings(Columns[str]):
    """Strings that only grow in number, as UTF-8 in one buffer."""

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

    def _at(self, position: int) -> str:
        start = self._ends[position - 1] if position else 0
        return self._buffer[start : self._ends[position]].decode()

    def __iter__(self) -> Iterator[str]:
        start = 0
        for end in self._ends:
            yield self._buffer[start:end].decode()
            start = end


class StringLists(Columns[list[str]]):
    """Lists of strings that only grow in number."""

    def __init__(self) -> None:
        self._strings, self._ends = Strings(), array("q")

    def append(self, strings: Iterable[str]) -> None:
        self._strings.extend(strings)
        self._ends.append(len(self._strings))

    def __len__(self) -> int:
        return len(self._ends)

    def _at(self, position: int) -> list[str]:
        start = self._ends[position - 1] if position else 0
        return self._strings[start : self._ends[position]]

    def __iter__(self) -> Iterator[list[str]]:
        strings, start = iter(self._strings), 0
        for end in self._ends:
            yield [next(strings) for _ in range(end - start)]
            start = end
