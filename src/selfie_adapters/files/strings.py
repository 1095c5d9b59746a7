"""Many short strings in little memory: one of three letters takes 11 bytes instead of 60."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator

from selfie_adapters.files.columns import Columns


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
