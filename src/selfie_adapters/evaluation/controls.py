"""Conditions of evaluations: which vectors are read, and through which map.

What a score is compared with, in every protocol:

zero vector    the adapter without a vector: its bias alone
shuffled       another vector's label, or another vector in its place
random         random directions with the vectors' norms
untrained      the unit vector times a scale in place of an adapter. Scales count mean norms of the
               model's embedding outputs; of several, the best on vectors that are not measured is
               taken. Only published configurations count in the vector's own units ("absolute").

The methods that need no adapter at all (logit lens, cosine, ridge probe) are in `baselines`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from selfie_adapters.adapters import Adapter, create_adapter
from selfie_adapters.adapters.specialists import Place
from selfie_adapters.dataset import LabelledVector, VectorLabelDataset
from selfie_adapters.dataset.controls import random_vectors, shuffle_order
from selfie_adapters.dataset.schema import Split
from selfie_adapters.errors import DataError
from selfie_adapters.labelling import Label, Labeller, score_candidates
from selfie_adapters.model import FrozenModel, SoftPrompt
from selfie_adapters.model.fingerprint import mean_embedding_norm
from selfie_adapters.reading.calibration import MAX_NEW_TOKENS

Reads = Literal["given", "zero", "shuffled", "random"]
Through = Literal["adapter", "identity", "untrained"]
ScaleUnit = Literal["embedding_norm", "absolute"]
NOWHERE: Place = (None, None)
T = TypeVar("T")


@dataclass(frozen=True)
class Condition:
    """One way in which the measured vectors become soft tokens.

    reads: the vectors that go in. through: the map that they go through. shuffles_labels: its
    labels are those of the condition `name` is compared with, each counted as another vector's.
    """

    name: str
    meaning: str
    reads: Reads = "given"
    through: Through = "adapter"
    shuffles_labels: bool = False

    def vectors(self, given: Tensor, seed: int) -> Tensor:
        """What goes in, in the shape of `given` [n, d_model]. Raises DataError for one vector
        that is to be shuffled."""
        match self.reads:
            case "given":
                return given
            case "zero":
                return torch.zeros_like(given)
            case "shuffled":
                return given[shuffle_order(len(given), seed)]
            case "random":
                return random_vectors(given, seed)


class Untrained:
    """SelfIE without an adapter: f(x) = scale · unit · x / ‖x‖, in the unit that scales count."""

    def __init__(self, model: FrozenModel, unit: ScaleUnit = "embedding_norm") -> None:
        self._model, self._unit = model, unit

    @cached_property
    def norm(self) -> float:
        """Length of the soft token at scale 1."""
        return 1.0 if self._unit == "absolute" else mean_embedding_norm(self._model)

    def adapter(self, scale: float = 1.0) -> Adapter:
        """The map at one scale, on the model's device."""
        plain = create_adapter("scale_only", self._model.d_model, init_scale=scale * self.norm)
        return plain.to(self._model.device)

    def labeller(self, prompt: SoftPrompt | None) -> Labeller:
        """Labels at any scale. prompt: the adapter's that it is compared with; None: the usual."""
        return Labeller(self._model, self.adapter(), prompt)

    def meaning(self, scale: float) -> str:
        """How results describe it."""
        unit = "" if self._unit == "absolute" else " mean embedding norms"
        return f"unit vector × {scale:g}{unit}, without an adapter"


class SoftTokenReader:
    """Greedy labels, and gains of names over the zero vector, through the model's question.

    A `baselines.Baseline` too: it answers with words and gives scores to names.
    """

    batch_size = 64

    def __init__(
        self,
        name: str,
        meaning: str,
        labeller: Labeller,
        scale: float = 1.0,
        place: Place = NOWHERE,
    ) -> None:
        """place: block and kind of position of the vectors, for an adapter with specialists."""
        self.name, self.meaning, self.place = name, meaning, place
        self._labeller, self._scale = labeller.at(*place), scale

    def labels(self, vectors: Tensor) -> list[Label]:
        """The label of each vector [n, d_model]."""
        found = self._labeller.label(
            vectors, (self._scale,), max_new_tokens=MAX_NEW_TOKENS, batch_size=self.batch_size
        )
        return [labels[0] for labels in found]

    def words(self, vectors: Tensor) -> list[str]:
        """Text of the label of each vector."""
        return [label.text for label in self.labels(vectors)]

    def scores(self, vectors: Tensor, names: Sequence[str]) -> Tensor:
        """Gain of each name under each vector, nats per token: [n, names]."""
        labeller = self._labeller
        # The zero vector is one more row: few names cost little more than reading the prompt.
        rows = torch.cat([vectors, torch.zeros_like(vectors[:1])])
        soft = labeller.soft_tokens(rows, self._scale)
        found = score_candidates(labeller.model, labeller.prompt, soft, names)
        return (found.log_probs[:-1] - found.log_probs[-1:]) / found.tokens


def identity(adapter: Adapter) -> Adapter:
    """f(x) = x, or x / ‖x‖ where `adapter` normalizes its input."""
    return create_adapter("identity", adapter.dim, normalize_input=adapter.normalize_input)


def best_scale(
    scales: Sequence[float], loss: Callable[[float], float]
) -> tuple[float, dict[float, float]]:
    """The scale with the lowest `loss`, the first of equal ones, and what each scale got.

    A single scale is taken without a measurement.
    """
    if len(scales) == 1:
        return scales[0], {}
    tried = {scale: loss(scale) for scale in scales}
    return min(scales, key=lambda scale: tried[scale]), tried


def reported_split(splits: Iterable[str | None], asked: Split | None) -> Split:
    """Which split results are reported on: `asked`, else test where there is one, else val."""
    return asked or ("test" if "test" in splits else "val")


def choosing_items(
    dataset: VectorLabelDataset, measured: Split, count: int, seed: int
) -> list[LabelledVector]:
    """`count` vectors that settings are chosen on, sampled: of val where another split is measured
    and there is one, else of train."""
    first: Split = "train" if measured == "val" else "val"
    free = dataset.labelled(first) or dataset.labelled("train")
    if measured == "train":
        free = dataset.labelled("val")
    return sample(free, count, seed)


def sample(items: Sequence[T], limit: int | None, seed: int) -> list[T]:
    """`limit` of the items sampled at random, in their order; all if there are no more."""
    if limit is None or limit >= len(items):
        return list(items)
    drawn = np.random.default_rng(seed).permutation(len(items))[:limit]
    return [items[i] for i in sorted(drawn.tolist())]


def other_topics(units: np.ndarray, seed: int) -> list[int]:
    """For each row, a row of another unit, sampled at random. Raises DataError for one unit."""
    generator = np.random.default_rng(seed)
    different = [np.flatnonzero(units != unit) for unit in units]
    if not len(units) or not all(len(rows) for rows in different):
        raise DataError(
            f"{len(set(units.tolist()))} topics cannot be shuffled; at least 2 are needed."
        )
    return [int(rows[generator.integers(len(rows))]) for rows in different]


def random_directions(count: int, width: int, seed: int) -> Tensor:
    """Gaussian unit vectors [count, width]; those of a smaller count are the first of a larger."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.stack([torch.randn(width, generator=generator) for _ in range(count)])
    return drawn / drawn.norm(dim=-1, keepdim=True)
