"""The files of a labelling run: shards that are complete, and parts that are being written.

labels-00007.jsonl        a complete shard: every vector of it has been tried; in order
labels-00007.jsonl.part   one that is being written: a line a vector, appended group by group
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfie_adapters.dataset.source import LabelSource
from selfie_adapters.files import atomic_path
from selfie_adapters.json_lines import read_jsonl

Row = dict[str, Any]


@dataclass(frozen=True)
class Shard:
    """Positions start to stop - 1 of the source, and the folder its file lies in."""

    folder: str
    number: int
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def path(self) -> Path:
        return Path(self.folder) / f"labels-{self.number:05d}.jsonl"


def cut_into_shards(folder: str | Path, count: int, size: int) -> list[Shard]:
    """`count` vectors in shards of `size`, the last one shorter."""
    starts = range(0, count, size)
    return [Shard(str(folder), i, at, min(at + size, count)) for i, at in enumerate(starts)]


def shard_state(shard: Shard) -> tuple[int, int] | None:
    """(labelled, failed) vectors of a complete shard; None if it is not complete."""
    if not shard.path.exists():
        return None
    failed = sum("error" in row for row in read_jsonl(shard.path))
    return len(shard) - failed, failed


class ShardFile:
    """One shard on disk, taken up where an earlier attempt left it.

    Labelled vectors stay and failed ones are tried again. Of a part only whole groups (of `group`
    neighbouring vectors) stay: the rest is then worked off in the batches it would have been in
    anyway, and comes out the same to the last digit.
    """

    def __init__(self, shard: Shard, source: LabelSource, group: int) -> None:
        self._shard, self._source = shard, source
        self._part = shard.path.with_name(shard.path.name + ".part")
        positions = range(shard.start, shard.stop)
        self._groups = [positions[i : i + group] for i in range(0, len(shard), group)]
        self._rows: dict[int, list[Row]] = {}
        if shard.path.exists():
            self._rows = self._complete()
        elif self._part.exists():
            found = {line["position"]: line["rows"] for line in read_jsonl(self._part)}
            for members in self._groups:
                if all(position in found for position in members):
                    self._rows |= {position: found[position] for position in members}
        self._rows = {p: rows for p, rows in self._rows.items() if "error" not in rows[0]}
        with atomic_path(self._part) as temporary:
            temporary.write_text("".join(map(_line, self._rows.items())), encoding="utf-8")

    def _complete(self) -> dict[int, list[Row]]:
        by_name: dict[tuple[object, int], list[Row]] = {}
        for row in read_jsonl(self._shard.path):
            by_name.setdefault((row.get("dataset"), row["index"]), []).append(row)
        found: dict[int, list[Row]] = {}
        for position in range(self._shard.start, self._shard.stop):
            name = self._source.identity(position)
            rows = by_name.get((name.get("dataset"), name["index"]))
            if rows:
                found[position] = rows
        return found

    def __len__(self) -> int:
        """Vectors that have their labels."""
        return len(self._rows)

    def missing(self) -> Iterator[list[int]]:
        """Positions still to be labelled, group by group."""
        for members in self._groups:
            positions = [position for position in members if position not in self._rows]
            if positions:
                yield positions

    def append(self, rows: dict[int, list[Row]]) -> None:
        """Add the rows of some vectors, by position, to the part."""
        self._rows |= rows
        with self._part.open("a", encoding="utf-8") as file:
            file.write("".join(map(_line, rows.items())))

    def finish(self) -> None:
        """Write the complete shard, in order, and drop the part."""
        with (
            atomic_path(self._shard.path) as temporary,
            temporary.open("w", encoding="utf-8") as file,
        ):
            for position in range(self._shard.start, self._shard.stop):
                for row in self._rows[position]:
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
        self._part.unlink(missing_ok=True)


def _line(vector: tuple[int, list[Row]]) -> str:
    position, rows = vector
    return json.dumps({"position": position, "rows": rows}, ensure_ascii=False) + "\n"
