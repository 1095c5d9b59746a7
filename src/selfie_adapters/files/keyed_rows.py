"""Finished units of work in a JSON Lines file, each under its key; a kill loses none of them."""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from selfie_adapters.files.atomic import make_folder
from selfie_adapters.files.columns import Strings
from selfie_adapters.files.existing import exists
from selfie_adapters.files.json_lines import append_jsonl, iter_jsonl, write_jsonl
from selfie_adapters.files.json_text import parse_json
from selfie_adapters.files.memory import MemoryLimit, size_of

Key = TypeVar("Key")
Value = TypeVar("Value")
Fields = Mapping[str, Any]
_PLACE = 180  # bytes of a key's place in the mapping, without the key


class KeyedRows(Mapping[Key, Value]):
    """The rows of one file as a mapping from key to value, in the order in which they were added.

    Rows are appended as they are added. What a killed process was writing, a torn last line, does
    not count and is removed by the next append. Of two rows with one key the later one counts.
    In memory a value is kept as its row is written: a list of numbers takes ten times its text.
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

        Raises what `parse` raises, and DataError naming file and line for what is not JSON, and
        for more rows without content than fit into memory.
        """
        self.path = Path(path)
        self._parse, self._fields, self._first = parse, fields, first
        self._forget()
        if not exists(self.path):
            return
        limit = MemoryLimit(str(self.path), self.path.stat().st_size)
        for number, row in iter_jsonl(self.path):
            if (found := parse(row, f"{self.path}, line {number}")) is not None:
                limit.take(size_of(found[0]) + _PLACE + self._keep(*found, number))

    def _forget(self) -> None:
        self._places: dict[Key, int] = {}
        self._rows, self._lines = Strings(), array("q")

    def _keep(self, key: Key, value: Value, line: int = 0) -> int:
        """Keep a value as its row; returns the characters of it."""
        row = json.dumps(self._fields(key, value), ensure_ascii=False)
        self._places[key] = len(self._rows)
        self._rows.append(row)
        self._lines.append(line)
        return len(row)

    def __getitem__(self, key: Key) -> Value:
        row = parse_json(self._rows[self._places[key]], str(self.path))
        found = self._parse(row, self.where(key))
        assert found is not None  # it was kept because it is one
        return found[1]

    def __contains__(self, key: object) -> bool:
        return key in self._places

    def __iter__(self) -> Iterator[Key]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def where(self, key: Key) -> str:
        """File and line of a row that was read, for messages."""
        place = self._places.get(key)
        line = self._lines[place] if place is not None else 0
        return f"{self.path}, line {line or '?'}"

    def add(self, values: Mapping[Key, Value]) -> None:
        """Append rows, all of them or, where writing fails, none.

        Raises StorageError if the disk is full or the file cannot be written.
        """
        if not exists(self.path):
            make_folder(self.path.parent)
        append_jsonl(self.path, *(self._fields(key, value) for key, value in values.items()))
        for key, value in values.items():
            self._keep(key, value)

    def replace(self, values: Mapping[Key, Value]) -> None:
        """Write the file again, atomically, with these values alone. Raises StorageError."""
        rows = [] if self._first is None else [self._first]
        values = dict(values)
        write_jsonl(self.path, [*rows, *(self._fields(k, v) for k, v in values.items())])
        self._forget()
        for key, value in values.items():
            self._keep(key, value)
