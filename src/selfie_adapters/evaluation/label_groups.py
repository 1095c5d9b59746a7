"""Where the labels that are scored come from: a labeller with some vectors, or a file.

Every latent gets the same number of groups in every condition, a label with its conversations
each, so that the best of them is chosen among equally many.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from selfie_adapters.labelling import Labeller


@dataclass(frozen=True)
class LabelGroup:
    """A label and the scale it was written at, None where it was given."""

    text: str
    scale: float | None = None


class LabelSource(Protocol):
    def groups(self, places: Sequence[int]) -> list[list[LabelGroup]]:
        """Groups of the evaluated latents at `places` (0 to n − 1), the same at every call."""
        ...


@dataclass(frozen=True)
class LabelDrawing:
    """How labels are drawn (the published values)."""

    max_tokens: int = 30
    temperature: float = 0.7
    top_p: float = 0.9


class WrittenLabels:
    """Labels that a model writes about vectors, one at each scale.

    vectors: [n, d_model], normed to 1 and then scaled; the adapter's own normalisation is off.
    """

    def __init__(
        self,
        labeller: Labeller,
        vectors: Tensor,
        latents: Sequence[int],
        scales: Sequence[float],
        how: LabelDrawing,
        seed: int,
    ) -> None:
        self._labeller, self._vectors, self._latents = labeller, vectors, latents
        self._scales, self._how, self._seed = scales, how, seed

    def groups(self, places: Sequence[int]) -> list[list[LabelGroup]]:
        answers = self._labeller.label(
            self._vectors[list(places)],
            self._scales,
            temperature=self._how.temperature,
            top_p=self._how.top_p,
            max_new_tokens=self._how.max_tokens,
            seed=self._seed,
            names=[(self._latents[place],) for place in places],
        )
        return [
            [LabelGroup(" ".join(one.text.split()), one.scale) for one in labels]
            for labels in answers
        ]


class GivenLabels:
    """Labels from a file: `count` groups a latent, its labels in turn."""

    def __init__(self, labels: Sequence[Sequence[str]], count: int) -> None:
        """labels: those of each evaluated latent, none empty."""
        self._labels, self._count = labels, count

    def groups(self, places: Sequence[int]) -> list[list[LabelGroup]]:
        return [
            [
                LabelGroup(self._labels[place][i % len(self._labels[place])])
                for i in range(self._count)
            ]
            for place in places
        ]
