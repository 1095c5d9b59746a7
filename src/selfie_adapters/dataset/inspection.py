"""What a training file holds, in numbers, and everything that is wrong with it."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from selfie_adapters.dataset.document import read_document
from selfie_adapters.dataset.load import Section, read_sections
from selfie_adapters.dataset.schema import Problem, decoded
from selfie_adapters.dataset.vectors import row_norms
from selfie_adapters.errors import DataError
from selfie_adapters.files.json_elements import JsonArray


@dataclass(frozen=True)
class Spread:
    """Least, mean and greatest of some numbers."""

    least: float
    mean: float
    greatest: float

    @classmethod
    def of(cls, numbers: array[float] | torch.Tensor) -> Spread | None:
        values = torch.as_tensor(numbers, dtype=torch.float64)
        if not values.numel():
            return None
        return cls(float(values.min()), float(values.mean()), float(values.max()))


@dataclass(frozen=True)
class SectionSummary:
    """Numbers of one section. Labels are counted in characters; norms are of labelled rows."""

    name: str
    rows: int | None
    d_model: int | None
    labelled: int
    train: int
    val: int
    test: int
    labels: int
    distinct_labels: int
    labels_per_vector: Spread | None
    label_length: Spread | None
    norm: Spread | None
    most_repeated: list[tuple[str, int]]


@dataclass(frozen=True)
class Inspection:
    file: str
    sections: list[SectionSummary]
    problems: list[Problem]

    def as_dict(self) -> dict[str, Any]:
        return {
            "file": self.file,
            "sections": [asdict(section) for section in self.sections],
            "problems": [str(problem) for problem in self.problems],
        }


def inspect_file(labels_file: str | Path) -> Inspection:
    """Look at a training file without refusing it.

    Raises only where there is nothing to look at: no such file, or not JSON.
    """
    sections, problems = read_sections(labels_file)
    if sections:
        summaries = [
            _summary(s.id, ((i.index, i.labels, i.split) for i in s.items), s) for s in sections
        ]
    else:  # broken, or labels alone: say what the labels tell
        summaries = list(_label_summaries(read_document(labels_file)))
    return Inspection(str(labels_file), summaries, problems)


def _label_summaries(document: Any):
    for raw in document if isinstance(document, list) else []:
        metadata, items = (
            (raw.get("metadata"), raw.get("vectors")) if isinstance(raw, dict) else (None, None)
        )
        if not isinstance(metadata, dict) or not isinstance(items, list | JsonArray):
            continue
        name = f"{metadata.get('dataset_name', '?')}@l{metadata.get('layer', '?')}"
        yield _summary(name, _told(items), None)


def _told(items: Iterable[Any]) -> Iterator[tuple[Any, list[str], Any]]:
    """Index, labels and split of the items that have labels."""
    for raw in items:
        try:
            item = decoded(raw)
        except DataError:
            continue
        labels = item.get("labels") if isinstance(item, dict) else None
        if isinstance(labels, list) and all(isinstance(label, str) for label in labels):
            yield item.get("index"), labels, item.get("split")


def _summary(
    name: str, items: Iterable[tuple[Any, list[str], Any]], section: Section | None
) -> SectionSummary:
    """items: (index, labels, split) of each."""
    counts, splits = Counter[str](), Counter[str]()
    groups, lengths = array("d"), array("d")
    for _, labels, split in items:
        counts.update(labels)
        splits[split if isinstance(split, str) else ""] += 1
        groups.append(len(labels))
        lengths.extend(map(len, labels))
    norm = None
    if section is not None:
        rows = torch.tensor(section.rows)
        norms = row_norms(section.vectors, rows[rows < section.vectors.shape[0]])
        norm = Spread.of(norms[torch.isfinite(norms)])
    return SectionSummary(
        name=name,
        rows=None if section is None else section.vectors.shape[0],
        d_model=None if section is None else section.vectors.shape[1],
        labelled=len(groups),
        train=splits["train"],
        val=splits["val"],
        test=splits["test"],
        labels=len(lengths),
        distinct_labels=len(counts),
        labels_per_vector=Spread.of(groups),
        label_length=Spread.of(lengths),
        norm=norm,
        most_repeated=[(label, n) for label, n in counts.most_common(3) if n > 1],
    )
