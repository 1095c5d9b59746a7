"""The files of a labelling run: shards that are complete, and parts that are being written.

labels-00007.jsonl        a complete shard: every vector of it has been tried; in order
labels-00007.jsonl.part   one that is being written: a line per vector, appended group by group
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec import UNSET

from selfie_adapters.dataset.source import LabelSource
from selfie_adapters.errors import DataError
from selfie_adapters.files.json_lines import write_jsonl
from selfie_adapters.files.keyed_rows import KeyedRows
from selfie_adapters.labelling.rows import (
    REMOVE,
    FailedRow,
    LabelRow,
    Name,
    Row,
    name_text,
    parse_row,
    read_rows,
    row_fields,
)


@dataclass(frozen=True)
class Shard:
    """Positions start to stop - 1 of the source, and the folder its file is in."""

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


def failed(rows: Sequence[Row]) -> bool:
    """Whether these rows of one vector state that it could not be labelled."""
    return isinstance(rows[0], FailedRow)


def complete(rows: Sequence[Row], rows_per_vector: int) -> bool:
    """Whether a vector has all its rows; a failed one has one.

    Of several concepts, none comes after one that is withheld.
    """
    if failed(rows) or len(rows) == rows_per_vector:
        return len(rows) == (1 if failed(rows) else rows_per_vector)
    last = rows[-1]
    if not isinstance(last, LabelRow) or last.concept_number != len(rows):
        return False
    return last.withheld is not UNSET


def shard_rows(shard: Shard, source: LabelSource, rows_per_vector: int) -> dict[int, list[Row]]:
    """Rows of the vectors that a finished shard's file has completely, by position.

    Vectors that lost rows are absent; {} if there is no file. Raises DataError naming file and line
    for what is no row, and for rows of vectors that are not this shard's.
    """
    if not shard.path.exists():
        return {}
    positions = {source_name(source, at): at for at in range(shard.start, shard.stop)}
    found: dict[int, list[Row]] = {}
    for name, rows in read_rows(shard.path).items():
        if name not in positions:
            raise DataError(
                f"{shard.path}: {name_text(name)} is not one of this shard's vectors. {REMOVE}"
            )
        if complete(rows, rows_per_vector):
            found[positions[name]] = rows
    return found


def source_name(source: LabelSource, position: int) -> Name:
    """The name of a source's vector, as rows have it."""
    identity = source.identity(position)
    return identity.get("dataset"), identity["index"]


class ShardFile:
    """One shard on disk, resumed where an earlier attempt left it.

    Labelled vectors stay and failed ones are tried again. Of a part, and of a shard that lost rows,
    only complete groups (of `group` neighbouring vectors) stay: the rest is then worked off in the
    batches it would have been in anyway, and comes out the same to the last digit.
    """

    def __init__(self, shard: Shard, source: LabelSource, group: int, rows_per_vector: int) -> None:
        """Raises DataError for a part or a finished file that holds something else."""
        self._shard, self._source = shard, source
        part = shard.path.with_name(shard.path.name + ".part")
        positions = range(shard.start, shard.stop)
        self._groups = [positions[i : i + group] for i in range(0, len(shard), group)]
        found = shard_rows(shard, source, rows_per_vector)
        if shard.path.exists():
            part.unlink(missing_ok=True)  # its writer was killed while it put the shard in place
        self._rows = KeyedRows(part, self._parsed, _line)
        if not shard.path.exists():
            found = {at: r for at, r in self._rows.items() if complete(r, rows_per_vector)}
        if len(found) < len(shard):
            whole = [group for group in self._groups if all(at in found for at in group)]
            found = {at: found[at] for group in whole for at in group}
        self._rows.replace({at: rows for at, rows in found.items() if not failed(rows)})

    def _parsed(self, line: dict[str, Any], where: str) -> tuple[int, list[Row]]:
        match line:
            case {"position": int(at), "rows": [*fields]} if (
                self._shard.start <= at < self._shard.stop and fields
            ):
                rows = [parse_row(row, where) for row in fields]
            case _:
                raise DataError(
                    f"{where}: a position from {self._shard.start} to {self._shard.stop - 1} "
                    f"and its rows are expected, found {line!r:.80}. {REMOVE}"
                )
        name = source_name(self._source, at)
        if any(row.name != name for row in rows):
            raise DataError(
                f"{where}: position {at} is {name_text(name)}, and the rows are of "
                f"{name_text(rows[0].name)}. {REMOVE}"
            )
        return at, rows

    def __len__(self) -> int:
        """Vectors that have their labels."""
        return len(self._rows)

    def missing(self) -> Iterator[list[int]]:
        """Positions still to be labelled, group by group."""
        for members in self._groups:
            positions = [position for position in members if position not in self._rows]
            if positions:
                yield positions

    def append(self, rows: Mapping[int, list[Row]]) -> None:
        """Add the rows of some vectors, by position, to the part.

        Raises StorageError if the disk is full; the part then holds what it held before.
        """
        self._rows.add(rows)

    def finish(self) -> None:
        """Write the complete shard, in order, and drop the part."""
        positions = range(self._shard.start, self._shard.stop)
        write_jsonl(
            self._shard.path, (row_fields(row) for at in positions for row in self._rows[at])
        )
        self._rows.path.unlink(missing_ok=True)


def _line(position: int, rows: list[Row]) -> dict[str, Any]:
    return {"position": position, "rows": [row_fields(row) for row in rows]}
