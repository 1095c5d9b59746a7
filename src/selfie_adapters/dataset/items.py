"""The labelled rows of a section, in columns."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator

from selfie_adapters.config.types import SPLITS
from selfie_adapters.dataset.schema import Item
from selfie_adapters.files.columns import Columns
from selfie_adapters.files.strings import Strings


class Items(Columns[Item]):
    """Items that only grow in number."""

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

    def _at(self, position: int) -> Item:
        start = self._ends[position - 1] if position else 0
        labels = self._labels[start : self._ends[position]]
        return Item(self.rows[position], labels, SPLITS[self.splits[position]])

    def __iter__(self) -> Iterator[Item]:
        labels, start = iter(self._labels), 0
        for index, split, end in zip(self.rows, self.splits, self._ends, strict=True):
            yield Item(index, [next(labels) for _ in range(end - start)], SPLITS[split])
            start = end
