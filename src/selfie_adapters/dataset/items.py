"""The labelled rows of a section, in columns, which take a fraction of the memory of objects."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import overload

from selfie_adapters.config.types import SPLITS
from selfie_adapters.dataset.schema import Item
from selfie_adapters.files.strings import Strings


class Items(Sequence[Item]):
    """Items that only grow in number. What is read are copies."""

    def __init__(self, items: Iterable[Item] = ()) -> None:
        self.rows = array("q")
        """Row of each item."""
        self.splits = bytearray()
        """Place of each item's split in SPLITS."""
        self._labels = Strings()
        self._ends = array("q")  # of each item's labels
        for item in items:
            self.append(item)

    def append(self, item: Item) -> None:
        self.rows.append(item.index)
        self.splits.append(SPLITS.index(item.split))
        self._labels.extend(item.labels)
        self._ends.append(len(self._labels))

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, position: int) -> Item: ...
    @overload
    def __getitem__(self, position: slice) -> list[Item]: ...
    def __getitem__(self, position: int | slice) -> Item | list[Item]:
        if isinstance(position, slice):
            return [self[one] for one in range(*position.indices(len(self)))]
        index = self.rows[position]  # raises IndexError
        position %= len(self)
        start = self._ends[position - 1] if position else 0
        labels = self._labels[start : self._ends[position]]
        return Item(index, labels, SPLITS[self.splits[position]])

    def __iter__(self) -> Iterator[Item]:
        labels, start = iter(self._labels), 0
        for index, split, end in zip(self.rows, self.splits, self._ends, strict=True):
            yield Item(index, [next(labels) for _ in range(end - start)], SPLITS[split])
            start = end

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(
            one == another for one, another in zip(self, other, strict=True)
        )
