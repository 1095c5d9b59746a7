"""The rows of a labelling run: one type for those who write them and those who read them, and how
the labels of one vector become its rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType

from selfie_adapters.config.labelling import LabelSettings
from selfie_adapters.errors import DataError
from selfie_adapters.files.json_lines import iter_jsonl
from selfie_adapters.files.number_types import NaturalNumber, Proportion
from selfie_adapters.labelling.choosing import Judgement, Ranked, Withheld, rank_labels
from selfie_adapters.labelling.decomposition.concepts import Concept
from selfie_adapters.labelling.label import Label
from selfie_adapters.words import plain

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


LabelJudge = Callable[[Label, float], Judgement]
"""Called with a label and its agreement, returns whether it is shown (`choosing.judge`)."""


def ranked_rows(
    labels: Sequence[Label],
    settings: LabelSettings,
    name: Mapping[str, Any],
    given: Sequence[str],
    judged: LabelJudge | None,
) -> list[Row]:
    """A row for each label of a vector, or for the best.

    name: what identifies the vector. given: its own labels. judged: None where nothing is ever
    withheld.
    """
    ranked = rank_labels(labels)
    if settings.best_of is None:  # all labels, in the order they were sampled
        order = {id(label): i for i, label in enumerate(labels)}
        ranked.sort(key=lambda one: order[id(one.label)])
    elif not settings.explain:
        ranked = ranked[:1]
    rows = []
    for one in ranked:
        verdict = None if judged is None else judged(one.label, one.agreement)
        rank = _rank(one) if len(labels) > 1 else {}
        rows.append(_row(one.label, name, given, verdict, rank))
    return rows


def concept_rows(
    concepts: Sequence[Concept],
    name: Mapping[str, Any],
    given: Sequence[str],
) -> list[Row]:
    """A row for each concept of a vector, the loudest first; arguments as in `ranked_rows`."""
    rows = []
    for number, one in enumerate(concepts, start=1):
        more = {"concept_number": number, "explained": round(one.explained, 4)}
        rows.append(_row(one.label, name, given, one.verdict, more))
    return rows


def _rank(one: Ranked) -> dict[str, Any]:
    margin = None if one.margin is None else round(one.margin, 4)
    return {"rank": one.rank, "agreement": round(one.agreement, 4), "margin": margin}


def _row(
    label: Label,
    name: Mapping[str, Any],
    given: Sequence[str],
    verdict: Judgement | None,
    more: Mapping[str, Any],
) -> LabelRow:
    row: dict[str, Any] = {
        "label": label.text,
        "raw": label.raw,
        "scale": label.scale,
        "sample": label.sample,
        "seed": label.seed,
        "log_prob": round(label.log_prob, 4),
        "zero_log_prob": round(label.zero_log_prob, 4),
        "gain": round(label.gain, 4),
        "score": round(label.gain, 4),
        "tokens": label.tokens,
        "ended": label.ended,
        **more,
    }
    if verdict is not None:
        row["concept"] = verdict.withheld is None
        if verdict.confidence is not None:
            row["confidence"] = round(verdict.confidence, 4)
        if verdict.withheld is not None:
            row["withheld"] = verdict.withheld
    if given:
        row["given"] = given[0]
        row["equal"] = plain(label.text) in map(plain, given)
    return LabelRow(**name, **row)
