"""What the naming protocol measures of a training file: sections with their held-out topics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from selfie_adapters.config.evaluation.naming import NamingSettings
from selfie_adapters.config.lists import parse_selection
from selfie_adapters.dataset import LabelledVector, Section, VectorLabelDataset
from selfie_adapters.dataset.schema import Split
from selfie_adapters.errors import ConfigError, DataError
from selfie_adapters.evaluation.controls import sample
from selfie_adapters.evaluation.naming.conditions import CHOOSE_ON, Known
from selfie_adapters.sources.topics.topic import Topic
from selfie_adapters.training.closed_form import VECTORS_A_DIMENSION

NULL = "null"
"""Vector type of sections whose vectors hold no concept."""


@dataclass(frozen=True)
class NamingSection:
    """The measured rows of one section, and those that its controls are fitted and chosen on."""

    dataset: VectorLabelDataset
    number: int
    measured: Sequence[LabelledVector]
    training: Sequence[LabelledVector]
    choosing: Sequence[LabelledVector]

    @property
    def section(self) -> Section:
        return self.dataset.sections[self.number]

    @property
    def layer(self) -> int:
        return self.section.layer

    @property
    def position(self) -> str:
        """The position kind: "-1", "name", …; "" where the file does not state it."""
        return str(self.section.metadata.get("position", ""))

    @property
    def is_null(self) -> bool:
        return self.section.metadata["vector_type"] == NULL

    @property
    def unit(self) -> str:
        """What units of work begin with."""
        return f"{self.number} {self.section.id}"

    @property
    def topics(self) -> list[Topic]:
        """The topic of each measured row: its first label is the name."""
        return [Topic(tuple(item.labels), name=item.labels[0]) for item in self.measured]

    @property
    def vectors(self) -> Tensor:
        """Of the measured rows: [n, d_model]."""
        return self._gather(self.measured)

    def known(self, items: Sequence[LabelledVector]) -> Known:
        return Known(self._gather(items), [item.labels[0] for item in items])

    def _gather(self, items: Sequence[LabelledVector]) -> Tensor:
        rows = torch.tensor([item.row for item in items], dtype=torch.int64)
        return self.dataset.gather(torch.full_like(rows, self.number), rows)


def naming_sections(dataset: VectorLabelDataset, settings: NamingSettings) -> list[NamingSection]:
    """The sections that are measured, by position kind and block; those without a concept last.

    Raises ConfigError where `layers` chooses none; DataError for a file without rows of the split.
    """
    layers = _layers(dataset, settings)
    topics = _topics(dataset, settings)
    found: list[NamingSection] = []
    for number, section in enumerate(dataset.sections):
        if section.layer not in layers:
            continue
        rows = {split: _rows(dataset, number, split) for split in ("train", "val", "test")}
        is_null = section.metadata["vector_type"] == NULL
        measured = [item for item in rows[settings.split] if is_null or item.labels[0] in topics]
        if is_null:
            measured = sample(measured, settings.limit, settings.seed)
        if not measured:
            continue
        own = {item.row for item in measured}
        training = [item for item in rows["train"] if item.row not in own]
        other = rows["train" if settings.split == "val" else "val"] or training
        if len(training) < 2 and not is_null:
            raise DataError(
                f"{settings.source}, {section.id}: {len(training)} vectors with the split "
                f'"train"; the ridge probe and the untrained scale need at least 2 that are not '
                "measured. Give a file with training vectors of the same block and position."
            )
        limit = VECTORS_A_DIMENSION * dataset.d_model
        found.append(
            NamingSection(
                dataset,
                number,
                measured,
                sample(training, limit, settings.seed),
                sample([item for item in other if item.row not in own], CHOOSE_ON, settings.seed),
            )
        )
    if not found:
        raise DataError(
            f'{settings.source}: no vector with the split "{settings.split}" in blocks '
            f"{', '.join(map(str, sorted(layers)))}. Give another split, or other layers."
        )
    return sorted(found, key=lambda one: (one.is_null, one.position, one.layer))


def _rows(dataset: VectorLabelDataset, number: int, split: Split) -> list[LabelledVector]:
    items = dataset.sections[number].items
    return [
        LabelledVector(number, item.index, item.labels, item.split)
        for item in items
        if item.split == split
    ]


def _layers(dataset: VectorLabelDataset, settings: NamingSettings) -> set[int]:
    present = {section.layer for section in dataset.sections}
    if settings.layers is None:
        return present
    chosen = present & set(parse_selection(settings.layers, max(present) + 1, "--layers"))
    if not chosen:
        raise ConfigError(
            f"--layers {settings.layers}: {settings.source} has the blocks "
            f"{', '.join(map(str, sorted(present)))}."
        )
    return chosen


def _topics(dataset: VectorLabelDataset, settings: NamingSettings) -> set[str]:
    """Names of the topics that are measured, the same in every section."""
    names = {
        item.labels[0]: None
        for section in dataset.sections
        if section.metadata["vector_type"] != NULL
        for item in section.items
        if item.split == settings.split
    }
    return set(sample(sorted(names), settings.limit, settings.seed))
