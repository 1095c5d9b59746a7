"""What is to be found: for each held-out vector, or topic, its number in the index."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selfie_adapters.config.evaluation.retrieval import RetrievalSettings
from selfie_adapters.dataset import LabelledVector, VectorLabelDataset, load_dataset
from selfie_adapters.errors import DataError
from selfie_adapters.evaluation.controls import reported_split, sample
from selfie_adapters.evaluation.folder import dataset_hash
from selfie_adapters.evaluation.retrieval.lookup import Entry
from selfie_adapters.files import existing_file
from selfie_adapters.files.json_lines import iter_jsonl
from selfie_adapters.files.memory import MemoryLimit, size_of
from selfie_adapters.labelling.finished_run import open_run
from selfie_adapters.labelling.rows import row_fields
from selfie_adapters.sources import open_topics
from selfie_adapters.sources.topics.topic import Topic
from selfie_adapters.words import plain

_PLACE = 240  # bytes of a label's place in a mapping, with its rank


@dataclass(frozen=True)
class Target:
    """One thing that a text is about. labels: those it was given, not made here."""

    key: str
    topic: int
    labels: tuple[str, ...]


def entries_of(topics: Sequence[Topic]) -> list[Entry]:
    return [Entry(topic.title, topic.labels) for topic in topics]


def entries_of_vectors(dataset: VectorLabelDataset) -> list[Entry]:
    """A training file's own labels as the index: its first label is a vector's title.

    Vectors with the same labels are one entry.
    """
    different = dict.fromkeys(tuple(item.labels) for item in dataset.labelled())
    return [Entry(labels[0], labels) for labels in different]


def targets_of_topics(entries: Sequence[Entry], chosen: Sequence[int]) -> list[Target]:
    """Topics themselves, without vectors; a key is the topic's number."""
    return [Target(str(i), i, entries[i].labels) for i in chosen]


def targets_of_vectors(
    dataset: VectorLabelDataset,
    items: Sequence[LabelledVector],
    entries: Sequence[Entry],
    source: str,
) -> list[Target]:
    """The topic of each vector: the one with the same labels, if only one has them.

    Otherwise the only one whose title is the vector's first label; otherwise the one whose number
    is the vector's row, if they share a label. source: the topics' name, for messages.
    Raises DataError for a vector whose topic is not among them.
    """
    titles: dict[str, list[int]] = {}
    same: dict[tuple[str, ...], list[int]] = {}
    for number, entry in enumerate(entries):
        titles.setdefault(entry.title, []).append(number)
        same.setdefault(entry.labels, []).append(number)
    targets = []
    for item in items:
        labels = tuple(item.labels)
        alike, named = same.get(labels, []), titles.get(labels[0], [])
        if len(alike) == 1:
            number = alike[0]
        elif len(named) == 1:
            number = named[0]
        else:
            number = item.row
            entry = entries[number] if number < len(entries) else None
            if entry is None or not {entry.title, *entry.labels} & set(labels):
                raise DataError(
                    f"{key_of(dataset, item)}, labels {list(labels)[:2]}: {len(named) or 'no'} "
                    f"topics of {source} have the first one as title, and topic {number} is "
                    "another one. Give the topics that the vectors were made from."
                )
        targets.append(Target(key_of(dataset, item), number, labels))
    return targets


def key_of(dataset: VectorLabelDataset, item: LabelledVector) -> str:
    """dataset_name@l{layer}/row."""
    return f"{dataset.sections[item.section].id}/{item.row}"


def gather(dataset: VectorLabelDataset, items: Sequence[LabelledVector]) -> Tensor:
    """The vectors of `items`: [n, d_model], float32."""
    positions = [(item.section, item.row) for item in items]
    section, row = torch.tensor(positions, dtype=torch.int64).reshape(-1, 2).T
    return dataset.gather(section, row)


def given_labels(
    path: str | Path, targets: Sequence[Target], entries: Sequence[Entry]
) -> list[str]:
    """A label for each target, from a labelling run's folder or a JSONL file.

    A JSONL row has `label`, and `topic` (a title) or `index` (the vector's row, or without vectors
    the topic's number), perhaps with `dataset`. Where there are several labels, the best ranked,
    else the first. A vector that could not be labelled has an empty one. Raises DataError for a row
    without these fields, and for a target that no row is about.
    """
    found = _read_labels(Path(path))
    one_dataset = len({target.key.rpartition("/")[0] for target in targets}) == 1
    labels = []
    for target in targets:
        names = [target.key, entries[target.topic].title]
        if one_dataset:
            names.insert(1, target.key.rpartition("/")[2])
        label = next((found[name] for name in names if name in found), None)
        if label is None:
            raise DataError(
                f'{path}: no label for {target.key} (topic "{entries[target.topic].title}"); it '
                f"has {len(found)} labels. Label all of the vectors, or set limit or split "
                "so that only labelled ones are looked up."
            )
        labels.append(label)
    return labels


def _read_labels(path: Path) -> dict[str, str]:
    found: dict[str, tuple[int, str]] = {}
    limit = None if path.is_dir() else MemoryLimit(str(path), existing_file(path).stat().st_size)
    for number, fields in _run_rows(path) if path.is_dir() else iter_jsonl(path):
        label = "" if "error" in fields else fields.get("label")
        name = fields.get("topic", fields.get("index"))
        rank = fields.get("rank", 0)
        if not (isinstance(label, str) and isinstance(name, str | int) and isinstance(rank, int)):
            raise DataError(
                f"{path}, line {number}: label and topic, or label and index are expected, found "
                f"{', '.join(fields)!r:.60}."
            )
        key = f"{fields['dataset']}/{name}" if "dataset" in fields else str(name)
        if key not in found or rank < found[key][0]:
            if limit is not None:
                limit.take(size_of(key) + size_of(label) + _PLACE)
            found[key] = rank, label
    return {key: label for key, (_, label) in found.items()}


def _run_rows(folder: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    run = open_run(folder)
    if run.missing:
        raise DataError(f"{folder}: {run.missing} vectors are not labelled yet. Finish the run.")
    for number, row in enumerate(run.rows(), start=1):
        yield number, row_fields(row)


def other_labels(
    targets: Sequence[Target], entries: Sequence[Entry], seed: int
) -> list[str | None]:
    """Of each target's given labels one that is not its topic's title; None where it has no other:
    the title itself would be right by construction."""
    generator = np.random.default_rng(seed)
    labels: list[str | None] = []
    for target in targets:
        title = plain(entries[target.topic].title)
        others = [label for label in target.labels if plain(label) != title]
        number = int(generator.integers(max(1, len(others))))
        labels.append(others[number] if others else None)
    return labels


@dataclass(frozen=True)
class Task:
    """What is looked for, and where."""

    entries: list[Entry]
    targets: list[Target]
    dataset: VectorLabelDataset | None
    items: list[LabelledVector]

    def vectors(self) -> Tensor:
        assert self.dataset is not None
        return gather(self.dataset, self.items)

    def digest(self, chooses_scales: bool) -> str:
        """Hash of topics, targets and vectors. chooses_scales: on vectors of the whole file."""
        stated = [(entry.title, entry.labels) for entry in self.entries]
        about = [(target.key, target.topic, target.labels) for target in self.targets]
        digest = hashlib.sha256(json.dumps([stated, about]).encode())
        if self.dataset is not None:
            digest.update(self.vectors().numpy().tobytes())
            if chooses_scales:
                digest.update(dataset_hash(self.dataset).encode())
        return digest.hexdigest()


def read_task(settings: RetrievalSettings) -> tuple[Task, RetrievalSettings]:
    """Read topics and vectors, and find each vector's topic; the settings with the split that is
    looked up.

    Raises what reading them raises; DataError for fewer than two targets.
    """
    entries = entries_of(open_topics(settings.topics)) if settings.topics else []
    if settings.vectors is None:
        topics = open_topics(settings.topics or "")
        split = reported_split({topic.split for topic in topics}, settings.split)
        held_out = [i for i, topic in enumerate(topics) if topic.split in (None, split)]
        chosen = sample(held_out, settings.limit, settings.seed)
        task = Task(entries, targets_of_topics(entries, chosen), None, [])
    else:
        dataset = load_dataset(settings.vectors)
        split = reported_split({item.split for item in dataset.labelled()}, settings.split)
        items = sample(dataset.labelled(split), settings.limit, settings.seed)
        source = settings.topics or settings.vectors
        entries = entries or entries_of_vectors(dataset)
        task = Task(entries, targets_of_vectors(dataset, items, entries, source), dataset, items)
    if len(task.targets) < 2:
        raise DataError(
            f"{settings.vectors or settings.topics}: {len(task.targets)} vectors or topics with "
            f'the split "{split}"; at least 2 are needed, so that they can be shuffled.'
        )
    return task, settings.model_copy(update={"split": split})
