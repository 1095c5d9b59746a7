"""Published files, known by their keys: labels, plain or with their topics, and retrieval scores.

A labels file has `generated_labels`: latent, label, scale. Joined with a metadata list (entry i is
about latent i) it has `enriched_labels`, which name the topic: `original_global_index`, its row in
the topics data set. Only those can be looked up.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import msgspec

from selfie_adapters.config.evaluation.retrieval import Strategy
from selfie_adapters.errors import ConfigError, DataError, nearest
from selfie_adapters.evaluation.retrieval.embedding import Embedder
from selfie_adapters.evaluation.retrieval.lookup import (
    KS,
    Entry,
    Query,
    Scored,
    TopicIndex,
)
from selfie_adapters.files import read_plain
from selfie_adapters.files.json_text import parse_json_as

FileKind = Literal["results", "labels", "retrieval summary", "ranks"]
_Content = dict[str, msgspec.Raw] | list[dict[str, msgspec.Raw]]

_KEYS: dict[str, FileKind] = {
    "evaluation_mode": "results",
    "generated_labels": "labels",
    "enriched_labels": "labels",
    "results_by_scale": "retrieval summary",
}

STRATEGIES: dict[str, Strategy] = {
    "title_only": "title",
    "title_plus_first_label": "title_and_first_label",
    "title_plus_all_labels": "title_and_all_labels",
    "mean_of_all": "mean",
}
"""Published name of an index → this project's."""

TOPICS = {"fifty-thousand": "keenanpepper/fifty-thousand-things"} | {
    "ten-thousand": "keenanpepper/ten-thousand-things"
}


@dataclass(frozen=True)
class WrittenLabel:
    """A label, the latent (row of the vectors) it was written for, and the topic's row, if known.

    number: which of the labels at the same scale, from 0.
    """

    latent: int
    text: str
    scale: float
    number: int = 0
    topic: int | None = None


@dataclass(frozen=True)
class LabelsFile:
    """A published labels file. dataset: the name that its metadata states, "" without one."""

    path: Path
    labels: tuple[WrittenLabel, ...]
    dataset: str = ""

    @property
    def topics(self) -> str:
        """The data set on the hub whose rows the labels are about, as its name states."""
        found = (repo for part, repo in TOPICS.items() if part in self.dataset)
        return next(found, TOPICS["fifty-thousand"])


class _Metadata(msgspec.Struct):
    dataset_name: str = ""


class _Generated(msgspec.Struct):
    latent_index: int
    label: str
    scale: float = 1.0
    label_index: int = 0


class _Enriched(msgspec.Struct):
    combined_index: int
    label: str
    original_global_index: int
    scale: float = 1.0
    label_index: int = 0


class _LabelsDocument(msgspec.Struct):
    metadata: _Metadata | None = None
    generated_labels: list[_Generated] | None = None
    enriched_labels: list[_Enriched] | None = None


class _About(msgspec.Struct):
    original_global_index: int


def read_labels_file(path: str | Path, about: str | Path | None = None) -> LabelsFile:
    """Labels of a published labels file, with or without what they are about.

    about: a metadata file (a list; entry i is about latent i) to join plain labels with; labels of
    latents beyond it are dropped, as published. Raises MissingFileError, or DataError naming file
    and position.
    """
    file = Path(path)
    document = parse_json_as(read_plain(file), str(file), _LabelsDocument)
    name = "" if document.metadata is None else document.metadata.dataset_name
    if document.enriched_labels is not None:
        labels = [
            WrittenLabel(
                one.combined_index, one.label, one.scale, one.label_index, one.original_global_index
            )
            for one in document.enriched_labels
        ]
    elif document.generated_labels is not None:
        labels = [
            WrittenLabel(one.latent_index, one.label, one.scale, one.label_index)
            for one in document.generated_labels
        ]
    else:
        raise DataError(f"{file}: neither generated_labels nor enriched_labels; no labels file.")
    if about is not None and document.enriched_labels is None:
        entries = parse_json_as(read_plain(about), str(about), list[_About])
        labels = [
            WrittenLabel(
                one.latent,
                one.text,
                one.scale,
                one.number,
                entries[one.latent].original_global_index,
            )
            for one in labels
            if 0 <= one.latent < len(entries)
        ]
    return LabelsFile(file, tuple(labels), name)


def strategy_named(name: str) -> Strategy:
    """This project's name of an index, from its own or the published one. Raises ConfigError."""
    for published, own in STRATEGIES.items():
        if name in (published, own):
            return own
    known = [*STRATEGIES, *STRATEGIES.values()]
    raise ConfigError(f"--index {name}: unknown index. {nearest(name, known)}")


def look_up(
    found: LabelsFile,
    entries: Sequence[Entry],
    strategy: Strategy,
    embedder: Embedder,
    scales: Sequence[float] | None = None,
) -> dict[float, Scored]:
    """Where the topic of each label comes among `entries`, for each scale by itself.

    entries: the topics in the order of their data set. Raises DataError for no labels, for labels
    that do not state their topic, for topics beyond `entries`, and for a scale that no label has.
    """
    if not found.labels:
        raise DataError(f"{found.path}: no labels to look up.")
    for number, label in enumerate(found.labels):
        if label.topic is None:
            raise DataError(
                f"{found.path}: labels without the topic they are about. Give --metadata FILE, the "
                "list whose entry i is about latent i, or the file made from both."
            )
        if not 0 <= label.topic < len(entries):
            raise DataError(
                f"{found.path}, label {number}: original_global_index is {label.topic}; there are "
                f"{len(entries)} topics. Give those that the vectors were made from (--topics)."
            )
    present = sorted({label.scale for label in found.labels})
    wanted = present if scales is None else list(scales)
    for scale in wanted:
        if scale not in present:
            listed = ", ".join(f"{one:g}" for one in present)
            raise DataError(f"{found.path}: no label at scale {scale:g}; it has {listed}.")
    index = TopicIndex(entries, strategy, embedder)
    results = {}
    for scale in wanted:
        queries = [
            Query(f"{label.latent}/{label.number}", label.topic or 0, label.text, scale)
            for label in found.labels
            if label.scale == scale
        ]
        results[scale] = index.look_up(f"scale {scale:g}", str(found.path), queries)
    return results


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


def kind_of(path: str | Path) -> FileKind:
    """The kind of a published file, by its keys. Raises MissingFileError, DataError."""
    either = cast("type[_Content]", _Content)
    content = parse_json_as(read_plain(path), str(path), either)
    if isinstance(content, list):
        if content and "rank" in content[0]:
            return "ranks"
        keys = list(content[0])[:5] if content else []
        found = f"a list of objects with {', '.join(keys)}" if keys else "an empty list"
    else:
        for key, kind in _KEYS.items():
            if key in content:
                return kind
        found = f"the keys {', '.join(list(content)[:5]) or '(none)'}"
    raise DataError(
        f"{path}: no published result or label file: one of {', '.join(_KEYS)}, or a list of rows "
        f"with rank is expected, found {found}."
    )
