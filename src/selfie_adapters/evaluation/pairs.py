"""What protocols on pairs of held-out concepts share: the concepts, their vectors, the adapter."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from selfie_adapters.adapters import find_adapter_file, load_adapter
from selfie_adapters.adapters.base import unit_norm
from selfie_adapters.adapters.locating import needed_adapter
from selfie_adapters.adapters.specialists import Place, adapter_digest
from selfie_adapters.config.shared import PairSettings
from selfie_adapters.dataset import Section, load_dataset
from selfie_adapters.dataset.captured import stated_kind
from selfie_adapters.errors import ConfigError, DataError
from selfie_adapters.evaluation.base import Protocol
from selfie_adapters.evaluation.folder import dataset_hash
from selfie_adapters.labelling import Labeller
from selfie_adapters.sources.topics.topic import Topic

P = TypeVar("P", bound=PairSettings)


class PairsProtocol(Protocol[P]):
    """Vectors are those of one section: one block and one kind of position.

    There once `inputs` has returned: first, second: unit vectors [pairs, d_model] of the two
    concepts of each pair, minus the mean that the file is without; topics: the concepts of the
    first vectors and of the second ones; section: what they are from.
    """

    first: Tensor
    second: Tensor
    topics: tuple[list[Topic], list[Topic]]
    section: Section

    def inputs(self) -> dict[str, str]:
        """Raises ConfigError without an adapter, and for a block or kind of position that the file
        lacks; DataError for too few concepts."""
        settings = self.settings
        command = f"selfie eval {self.name()}"
        named = needed_adapter(settings.adapter, settings.model, command)
        self.settings = settings.model_copy(update={"adapter": named})
        self.adapter_file = find_adapter_file(named)
        self._dataset = load_dataset(settings.source)
        self.section = self._section()
        self._draw()
        return {
            "adapter_file": adapter_digest(self.adapter_file),
            "training_file": dataset_hash(self._dataset),
        }

    @property
    def place(self) -> Place:
        """Block and kind of position of the vectors."""
        return self.settings.layer, self.settings.position

    def labeller(self) -> Labeller:
        """The model with the adapter. Raises DataError for vectors of another width."""
        self.check_width(self._dataset, self.settings.source)
        return Labeller(self.model, load_adapter(self.adapter_file))

    def _section(self) -> Section:
        settings = self.settings
        for section in self._dataset.sections:
            if section.layer != settings.layer or stated_kind(section.metadata) is None:
                continue
            if stated_kind(section.metadata) == settings.position:
                return section
        known = sorted(
            {(one.layer, str(one.metadata.get("position"))) for one in self._dataset.sections}
        )
        listed = ", ".join(f"{layer} at {kind}" for layer, kind in known)
        raise ConfigError(
            f"{settings.source}: no vectors of block {settings.layer} at position "
            f"{settings.position}; it has {listed}. Choose with --layer and --position."
        )

    def _draw(self) -> None:
        settings, section = self.settings, self.section
        rows = {one.labels[0]: one.index for one in section.items if one.split == settings.split}
        names = sorted(rows)
        if len(names) < 2 * settings.pairs:
            raise DataError(
                f"{settings.source}, {section.id}: {len(names)} concepts with the split "
                f'"{settings.split}"; {settings.pairs} pairs need {2 * settings.pairs}. Give a '
                "smaller --pairs."
            )
        order = np.random.default_rng(settings.seed).permutation(len(names))
        chosen = [names[i] for i in order[: 2 * settings.pairs]]
        vectors = section.vectors[torch.tensor([rows[name] for name in chosen])].float()
        self.first, self.second = unit_norm(vectors).split(settings.pairs)
        topics = [Topic((name,), name=name) for name in chosen]
        self.topics = topics[: settings.pairs], topics[settings.pairs :]
