"""The rows of a labelling run, one type for those who write them and those who read them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType

from selfie_adapters.errors import DataError
from selfie_adapters.files.json_lines import iter_jsonl
from selfie_adapters.files.number_types import NaturalNumber, Proportion
from selfie_adapters.labelling.choosing import Withheld

Name = tuple[str | None, int]
"""What names a vector: its dataset, where it has one, and its row in it."""

REMOVE = (
    "Remove the file and run the same selfie label command again: it labels these vectors again."
)
"""What errors in the files of a run advise."""


class _Named(msgspec.Struct, frozen=True, kw_only=True):
    dataset: str | UnsetType = UNSET
    index: NaturalNumber

    @property
    def name(self) -> Name:
        return (None if self.dataset is UNSET else self.dataset, self.index)


class LabelRow(_Named, frozen=True, kw_only=True):
    """One label of one vector. Likelihoods in nats: log_prob of the label's `tokens` tokens,
    zero_log_prob of the same after the zero vector, gain their difference per token. score: the
    name that gain had in earlier releases; written as well until the next one.

    rank, agreement, margin (`choosing.Ranked`): where a vector has several labels. concept: whether
    the label is shown, where the run has a confidence file or the adapter a label for "no concept";
    withheld: why it is not (choosing.py). confidence: where there is a confidence file, but for
    the answer "no concept". concept_number, explained: where a vector's concepts are read one after
    another (labelling/decomposition): which one this is, from 1, and the share of the vector that
    it explains. given: the vector's first own label, where it has one, and equal:
    whether the label is one of its own, case and whitespace aside.
    """

    label: str
    raw: str
    scale: float
    sample: NaturalNumber
    seed: Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
    log_prob: float
    zero_log_prob: float
    gain: float
    tokens: NaturalNumber
    ended: bool
    rank: NaturalNumber | UnsetType = UNSET
    agreement: float | UnsetType = UNSET
    margin: float | UnsetType | None = UNSET
    concept_number: Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)] | UnsetType = UNSET
    explained: Proportion | UnsetType = UNSET
    confidence: float | UnsetType = UNSET
    concept: bool | UnsetType = UNSET
    withheld: Withheld | UnsetType = UNSET
    given: str | UnsetType = UNSET
    equal: bool | UnsetType = UNSET
    score: float | UnsetType = UNSET

    def __post_init__(self) -> None:
        for field in ("scale", "log_prob", "zero_log_prob", "gain", "agreement", "margin"):
            value = getattr(self, field)
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{field} is {value}; a finite number is expected")


class FailedRow(_Named, frozen=True, kw_only=True):
    """A vector that could not be labelled, and why."""

    error: str


Row = LabelRow | FailedRow

COLUMNS = tuple(dict.fromkeys([*LabelRow.__struct_fields__, *FailedRow.__struct_fields__]))
"""Every field that a row can have, in the order in which tables show them."""


def row_fields(row: Row) -> dict[str, Any]:
    """A row as it is written; fields that it does not have are absent."""
    return msgspec.to_builtins(row)


def parse_row(fields: Any, where: str) -> Row:
    """The row that `fields` holds. Raises DataError, with `where`, if it is no row of a run."""
    kind = FailedRow if isinstance(fields, Mapping) and "error" in fields else LabelRow
    if isinstance(fields, Mapping) and "score" in fields:
        fields = {"gain": fields["score"], **fields}
    try:
        return msgspec.convert(fields, kind)
    except msgspec.ValidationError as error:
        raise DataError(f"{where}: not a row of a labelling run ({error}). {REMOVE}") from error


def read_rows(shard: str | Path) -> dict[Name, list[Row]]:
    """The rows of a complete shard's file, by vector, in the file's order.

    Raises MissingFileError, or DataError naming file and line for what is no row and for a label
    that occurs twice.
    """
    found: dict[Name, list[Row]] = {}
    for number, fields in iter_jsonl(shard):
        row = parse_row(fields, f"{shard}, line {number}")
        others = found.setdefault(row.name, [])
        if any(_same_label(row, other) for other in others):
            raise DataError(
                f"{shard}, line {number}: {name_text(row.name)} has this row already. {REMOVE}"
            )
        others.append(row)
    return found


def name_text(name: Name) -> str:
    """A vector's name for a message or a table."""
    dataset, index = name
    return f"row {index}" if dataset is None else f"{dataset} {index}"


def _same_label(row: Row, other: Row) -> bool:
    if isinstance(row, FailedRow) or isinstance(other, FailedRow):
        return True  # a failed vector has one row, and no label
    mine, its = ((one.scale, one.sample, one.concept_number) for one in (row, other))
    return mine == its
