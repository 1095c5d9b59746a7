"""What reads the states of a question: adapter, no adapter, zero vector, tokens by a baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from selfie_adapters.dataset.controls import random_vectors
from selfie_adapters.evaluation.baselines import RidgeProbe, TokenBaseline
from selfie_adapters.evaluation.bridge.probes import BlockProbes
from selfie_adapters.evaluation.bridge.reading import (
    Grid,
    QuestionPlan,
    StateSampling,
    ZeroLabels,
    in_cells,
    write_labels,
)
from selfie_adapters.inference.generate import row_seed
from selfie_adapters.labelling import Labeller
from selfie_adapters.model import FrozenModel

ZERO, RANDOM = "zero vector", "random directions"


class CellReader(Protocol):
    """One condition. Every one gives as many labels of a state as the others."""

    @property
    def name(self) -> str: ...

    @property
    def meaning(self) -> str: ...

    def labels(self, states: Tensor, one: QuestionPlan) -> Grid:
        """Of the centered states [layers, positions, d_model]: layers × positions × samples."""
        ...

    def matching(self, names: Sequence[str]) -> Sequence[str]:
        """An entity's names as these labels give them."""
        ...


@dataclass(frozen=True)
class SoftTokenCellReader:
    """Labels of the states, or of random directions with their norms, through one map."""

    name: str
    meaning: str
    labeller: Labeller
    how: StateSampling
    scale: float = 1.0
    random: bool = False

    def labels(self, states: Tensor, one: QuestionPlan) -> Grid:
        if self.random:
            seed = row_seed(self.how.seed, "random", one.question.uid)
            states = random_vectors(states.flatten(0, 1), seed).view_as(states)
        return write_labels(self.labeller, states, one, self.how, self.scale)

    def matching(self, names: Sequence[str]) -> Sequence[str]:
        return names


@dataclass(frozen=True)
class ZeroReader:
    """Labels of the zero vector, whatever the states."""

    name: str
    meaning: str
    zero: ZeroLabels

    def labels(self, states: Tensor, one: QuestionPlan) -> Grid:
        del states
        return self.zero.of(one)

    def matching(self, names: Sequence[str]) -> Sequence[str]:
        return names


class TokenCellReader:
    """A baseline's best tokens for a state, as many as the other conditions have labels.

    A token is compared with the first token of each name, as inside a sentence: the baseline is
    given credit for a name of several tokens when it begins it.
    """

    def __init__(
        self, model: FrozenModel, baseline: TokenBaseline | BlockProbes, samples: int
    ) -> None:
        self._model, self._baseline, self._samples = model, baseline, samples
        of = RidgeProbe if isinstance(baseline, BlockProbes) else baseline
        self.name = of.name
        best = "" if samples == 1 else f"; its best {samples}"
        self.meaning = f"{of.meaning}{best}; a name's first token counts"

    def labels(self, states: Tensor, one: QuestionPlan) -> Grid:
        cells = states.flatten(0, 1)
        if isinstance(self._baseline, BlockProbes):
            places = self._baseline.places(one)
            ids = torch.empty(len(cells), self._samples, dtype=torch.int64)
            for place in dict.fromkeys(places):
                mine = [i for i, other in enumerate(places) if other == place]
                ids[mine] = self._baseline.at(place).tokens(cells[mine], self._samples)
        else:
            ids = self._baseline.tokens(cells, self._samples)
        decode = self._model.tokenizer.decode
        texts = [str(decode([token])).strip() for token in ids.flatten().tolist()]
        return in_cells(texts, one, self._samples)

    def matching(self, names: Sequence[str]) -> Sequence[str]:
        tokenizer = self._model.tokenizer
        encoded = [tokenizer.encode(f" {name}", add_special_tokens=False) for name in names]
        first = [str(tokenizer.decode(ids[:1])).strip() for ids in encoded if ids]
        return tuple(dict.fromkeys(text for text in first if text))
