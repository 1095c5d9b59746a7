"""Finished units of work in a JSON Lines file, each under its key; a kill loses none of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from selfie_adapters.files.atomic import make_folder
from selfie_adapters.files.existing import exists
from selfie_adapters.files.json_lines import append_jsonl, iter_jsonl, write_jsonl

Key = TypeVar("Key")
Value = TypeVar("Value")
Fields = Mapping[str, Any]


class KeyedRows(Mapping[Key, Value]):
    """The rows of one file as a mapping from key to value, in the order in which they were added.

    Rows are appended as they are added. What a killed process was writing, a torn last line, does
    not count and is removed by the next append. Of two rows with one key the later one counts.
    """

    def __init__(
        self,
        path: str | Path,
        parse: Callable[[dict[str, Any], str], tuple[Key, Value] | None],
        fields: Callable[[Key, Value], Fields],
        first: Fields | None = None,
    ) -> None:
        """Read the file, if there is one; it and its folder are made when something is added.

        parse: (row of the file, "file, line N") → key and value; it raises DataError for any other
        row, and returns None for one that is not a unit of work. fields: the row of a key and
        value. first: a row that begins the file, such as settings; `parse` returns None for it.

        Raises what `parse` raises, and DataError naming file and line for what is not JSON.
        """
        self.path = Path(path)
        self._fields, self._first = fields, first
        self._values: dict[Key, Value] = {}
        self._lines: dict[Key, int] = {}
        for number, row in iter_jsonl(self.path) if exists(self.path) else ():
            if (found := parse(row, f"{self.path}, line {number}")) is not None:
                key, self._values[found[0]] = found
                self._lines[key] = number

    def __getitem__(self, key: Key) -> Value:
        return self._values[key]

    def __iter__(self) -> Iterator[Key]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def where(self, key: Key) -> str:
        """File and line of a row that was read, for messages."""
        return f"{self.path}, line {self._lines.get(key, '?')}"

    def add(self, values: Mapping[Key, Value]) -> None:
        """Append rows, all of them or, where writing fails, none.

        Raises StorageError if the disk is full or the file cannot be written.
        """
        if not exists(self.path):
            make_folder(self.path.parent)
        append_jsonl(self.path, *(self._fields(key, value) for key, value in values.items()))
        self._values.update(values)

    def replace(self, values: Mapping[Key, Value]) -> None:
        """Write the file again, atomically, with these values alone. Raises StorageError."""
        rows = [] if self._first is None else [self._first]
        write_jsonl(self.path, [*rows, *(self._fields(k, v) for k, v in values.items())])
        self._values, self._lines = dict(values), {}
