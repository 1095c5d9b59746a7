"""What a retrieval looks for, and among what."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from selfie_adapters.adapters import find_adapter_file
from selfie_adapters.config.evaluation.retrieval import RetrievalSettings
from selfie_adapters.dataset import LabelledVector, VectorLabelDataset, load_dataset
from selfie_adapters.errors import DataError
from selfie_adapters.evaluation.inputs import dataset_hash
from selfie_adapters.evaluation.retrieval.targets import (
    Target,
    entries_of,
    entries_of_vectors,
    given_labels,
    sample,
    targets_of_topics,
    targets_of_vectors,
)
from selfie_adapters.evaluation.retrieval.title_index import Entry
from selfie_adapters.files import sha256
from selfie_adapters.sources import open_topics


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

    def inputs(self, settings: RetrievalSettings) -> dict[str, str]:
        """Hashes of what the results depend on."""
        said = [(entry.title, entry.labels) for entry in self.entries]
        about = [(target.key, target.topic, target.labels) for target in self.targets]
        digest = hashlib.sha256(json.dumps([said, about]).encode())
        if self.dataset is not None:
            digest.update(self.vectors().numpy().tobytes())
            if settings.adapters:  # their scales are chosen on training vectors
                digest.update(dataset_hash(self.dataset).encode())
        hashes = {"topics_and_vectors": digest.hexdigest()}
        for name, path in settings.adapters.items():
            hashes[f"adapter {name}"] = sha256(find_adapter_file(path))
        for name, path in settings.labels.items():
            labels = given_labels(path, self.targets, self.entries)
            hashes[f"labels {name}"] = hashlib.sha256(json.dumps(labels).encode()).hexdigest()
        return hashes


def read_task(settings: RetrievalSettings) -> Task:
    """Read topics and vectors, and find each vector's topic.

    Raises what reading them raises; DataError for fewer than two targets.
    """
    entries = entries_of(open_topics(settings.topics)) if settings.topics else []
    if settings.vectors is None:
        topics = open_topics(settings.topics or "")
        held_out = [i for i, topic in enumerate(topics) if topic.split in (None, settings.split)]
        chosen = sample(held_out, settings.limit, settings.seed)
        task = Task(entries, targets_of_topics(entries, chosen), None, [])
    else:
        dataset = load_dataset(settings.vectors)
        items = sample(dataset.labelled(settings.split), settings.limit, settings.seed)
        source = settings.topics or settings.vectors
        entries = entries or entries_of_vectors(dataset)
        task = Task(entries, targets_of_vectors(dataset, items, entries, source), dataset, items)
    if len(task.targets) < 2:
        raise DataError(
            f"{settings.vectors or settings.topics}: {len(task.targets)} vectors or topics with "
            f'the split "{settings.split}"; at least 2 are needed, so that they can be shuffled.'
        )
    return task


def gather(dataset: VectorLabelDataset, items: Sequence[LabelledVector]) -> Tensor:
    """The vectors of `items`: [n, d_model], float32."""
    places = [(item.section, item.row) for item in items]
    section, row = torch.tensor(places, dtype=torch.int64).reshape(-1, 2).T
    return dataset.gather(section, row)
