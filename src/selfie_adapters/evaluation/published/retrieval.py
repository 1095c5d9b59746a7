"""Published retrieval results, read back: a summary by scale, or the ranks of single labels."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import msgspec

from selfie_adapters.errors import DataError
from selfie_adapters.evaluation.retrieval.lookup import KS
from selfie_adapters.files import read_plain
from selfie_adapters.files.json_text import parse_json_as


@dataclass(frozen=True)
class RetrievalScore:
    """Recall at k and mean reciprocal rank of `labels` labels, as a published file has them."""

    name: str
    labels: int
    recall_at: dict[int, float]
    mean_reciprocal_rank: float


class _Scale(msgspec.Struct):
    n_labels: int
    recalls: dict[str, float]
    mrr: float


class _Summary(msgspec.Struct):
    results_by_scale: dict[str, _Scale]


class _Ranked(msgspec.Struct):
    rank: int


def read_retrieval_summary(path: str | Path) -> list[RetrievalScore]:
    """The scores of a retrieval_eval_summary.json, scale by scale. Raises DataError."""
    document = parse_json_as(read_plain(path), str(path), _Summary)
    if not document.results_by_scale:
        raise DataError(f"{path}: results_by_scale is empty; there are no scores.")
    scores = []
    for scale, found in document.results_by_scale.items():
        recalls = {}
        for k, value in found.recalls.items():
            digits = k.rpartition("@")[2].removeprefix("recall_")
            if not re.fullmatch(r"[0-9]{1,9}", digits):
                raise DataError(
                    f'{path}, scale {scale}: recalls has the key "{k:.40}"; k is expected.'
                )
            recalls[int(digits)] = value
        scores.append(RetrievalScore(f"scale {scale}", found.n_labels, recalls, found.mrr))
    return scores


def read_ranks(path: str | Path) -> RetrievalScore:
    """Scores from the ranks (from 1) in a published per-label file. Raises DataError."""
    rows = parse_json_as(read_plain(path), str(path), list[_Ranked])
    for number, row in enumerate(rows):
        if row.rank < 1:
            raise DataError(f"{path}, row {number}: rank is {row.rank}; ranks count from 1.")
    if not rows:
        raise DataError(f"{path}: no labels.")
    return RetrievalScore(
        Path(path).name,
        len(rows),
        {k: sum(row.rank <= k for row in rows) / len(rows) for k in KS},
        sum(1 / row.rank for row in rows) / len(rows),
    )
