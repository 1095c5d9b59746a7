"""A labelling run as its folder holds it, for what reads it: rows, labels, what is missing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from msgspec import UNSET

from selfie_adapters.config.labelling import LabelSettings
from selfie_adapters.errors import DataError
from selfie_adapters.labelling.rows import LabelRow, Name, Row, name_text, read_rows
from selfie_adapters.labelling.run_record import RunRecord
from selfie_adapters.labelling.shards import Shard, complete

_REPAIR = "Run the same selfie label command again: it labels what is missing."


@dataclass(frozen=True)
class FinishedRun:
    """A run folder as far as it is complete. missing: vectors whose shards are not."""

    folder: Path
    record: RunRecord
    shards: list[Shard]
    missing: int

    @property
    def settings(self) -> LabelSettings:
        return self.record.settings

    def rows(self) -> Iterator[Row]:
        """All rows, in order, shard by shard.

        Raises DataError naming the file where a shard lost rows of its vectors, has rows that are
        none, has a row twice, or has vectors of another shard.
        """
        for vector in self._vectors():
            yield from vector

    def best(self) -> Iterator[LabelRow]:
        """The leading labels without those that are empty or withheld. Raises like `rows`."""
        return (row for row in self.leading() if row.label and row.concept is not False)

    def leading(self) -> Iterator[LabelRow]:
        """One row per vector that could be labelled: its first, or its best ranked.

        Raises like `rows`.
        """
        return (labels[0] for labels in self.labelled())

    def labelled(self) -> Iterator[list[LabelRow]]:
        """The rows of each vector that could be labelled, best ranked first, else in their order.

        Raises like `rows`.
        """
        for vector in self._vectors():
            labels = [row for row in vector if isinstance(row, LabelRow)]
            if labels:
                yield sorted(labels, key=lambda row: 0 if row.rank is UNSET else row.rank)

    def _vectors(self) -> Iterator[list[Row]]:
        seen: dict[Name, Path] = {}
        for shard in self.shards:
            found = read_rows(shard.path)
            for name, rows in found.items():
                if name in seen:
                    raise DataError(
                        f"{shard.path}: {name_text(name)} is in {seen[name].name} too. Remove the "
                        "file that is wrong and run the same selfie label command again."
                    )
                if not complete(rows, self.settings.rows_per_vector):
                    raise DataError(
                        f"{shard.path}: {name_text(name)} has {len(rows)} rows where the run's "
                        f"settings make {self.settings.rows_per_vector}. {_REPAIR}"
                    )
                seen[name] = shard.path
            if len(found) != len(shard):
                raise DataError(
                    f"{shard.path} has rows of {len(found)} vectors; {len(shard)} are expected. "
                    f"{_REPAIR}"
                )
            yield from found.values()


def open_run(folder: str | Path) -> FinishedRun:
    """Raises MissingFileError or DataError if `folder` is no labelling run."""
    record = RunRecord.read(folder)
    size = record.settings.shard_size
    finished = []
    # By the files that are there, not by the count, which may be damaged and huge.
    for path in Path(folder).glob("labels-*.jsonl"):
        number = path.stem.removeprefix("labels-")
        if number.isascii() and number.isdecimal() and int(number) * size < record.vectors:
            start = int(number) * size
            shard = Shard(str(folder), int(number), start, min(start + size, record.vectors))
            if shard.path == path:
                finished.append(shard)
    finished.sort(key=lambda shard: shard.number)
    missing = record.vectors - sum(map(len, finished))
    return FinishedRun(Path(folder), record, finished, missing)
