"""Where the labels that are scored come from: a labeller with some vectors, or a file.

Every latent gets the same number of groups in every condition, a label with its conversations
each, so that the best of them is chosen among equally many.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from selfie_adapters.adapters import Adapter, load_adapter
from selfie_adapters.config.evaluation.scoring import Cut, ScoringSettings
from selfie_adapters.config.shared import Sampling
from selfie_adapters.evaluation.controls import Condition, Untrained
from selfie_adapters.inference.label_batches import CLOSING_QUOTE
from selfie_adapters.labelling import Labeller
from selfie_adapters.model import FrozenModel, SoftPrompt


@dataclass(frozen=True)
class LabelGroup:
    """A label and the scale it was written at, None where it was given."""

    text: str
    scale: float | None = None


class LabelGroups(Protocol):
    def groups(self, places: Sequence[int]) -> list[list[LabelGroup]]:
        """Groups of the evaluated latents at `places` (0 to n − 1), the same at every call."""
        ...


CONDITIONS = {
    one.name: one
    for one in (
        Condition("trained", "labels by the adapter"),
        Condition("zero", "labels of the zero vector", reads="zero"),
        Condition("random", "labels of random directions", reads="random"),
        Condition("untrained", "labels of unit vectors without an adapter", through="untrained"),
    )
}
"""Conditions whose labels are generated; the others' are in `known_labels`."""

PUBLISHED = Sampling(temperature=0.7, top_p=0.9)


@dataclass(frozen=True)
class LabelSampling:
    """How labels are sampled (the published values), and where the text of one ends.

    samples: labels at each scale. cut: "trimmed" ends at the first quote and collapses whitespace;
    "first_quote" and "last_quote" keep it, as published; for the last one the model continues after
    a quote until it ends its turn.
    """

    sampling: Sampling = PUBLISHED
    samples: int = 1
    cut: Cut = "trimmed"

    def text_of(self, raw: str) -> str:
        """The label in the written text `raw`."""
        if self.cut == "last_quote":
            return raw.rpartition(CLOSING_QUOTE)[0] if CLOSING_QUOTE in raw else raw
        text = raw.partition(CLOSING_QUOTE)[0]
        return " ".join(text.split()) if self.cut == "trimmed" else text


class GeneratedLabels:
    """Labels that a model writes about vectors, how.samples at each scale.

    vectors: [n, d_model], those of the latents; the scale applies to the adapter's input.
    """

    def __init__(
        self,
        labeller: Labeller,
        vectors: Tensor,
        latents: Sequence[int],
        scales: Sequence[float],
        how: LabelSampling,
        seed: int,
    ) -> None:
        self._labeller, self._vectors, self._latents = labeller, vectors, latents
        self._scales, self._how, self._seed = scales, how, seed

    def groups(self, places: Sequence[int]) -> list[list[LabelGroup]]:
        answers = self._labeller.label(
            self._vectors[list(places)],
            self._scales,
            self._how.samples,
            self._how.sampling,
            seed=self._seed,
            names=[(self._latents[place],) for place in places],
            stop_at_quote=self._how.cut != "last_quote",
        )
        return [
            [LabelGroup(self._how.text_of(one.raw), one.scale) for one in labels]
            for labels in answers
        ]


class GivenLabels:
    """Given labels: `count` groups per latent, its labels in turn; None: each label once. A latent
    without labels has no groups."""

    def __init__(self, labels: Sequence[Sequence[str]], count: int | None) -> None:
        """labels: those of each evaluated latent."""
        self._labels, self._count = labels, count

    def groups(self, places: Sequence[int]) -> list[list[LabelGroup]]:
        return [
            [
                LabelGroup(self._labels[place][i % len(self._labels[place])])
                for i in range(self._count or len(self._labels[place]))
                if self._labels[place]
            ]
            for place in places
        ]


def _labeller(
    settings: ScoringSettings, model: FrozenModel, adapter: Adapter, prompt: SoftPrompt | None
) -> Labeller:
    """A labeller with the scale unit and the prompt of the settings."""
    if settings.normalize_vectors is not None:
        adapter.normalize_input = False  # `_vectors` has normalized them already, or nobody should
    if settings.template is not None and settings.placeholder is not None:
        prompt = SoftPrompt(settings.template, settings.placeholder)
    return Labeller(model, adapter, prompt)


def label_sources(
    settings: ScoringSettings,
    wanted: list[str],
    model: FrozenModel,
    latents: list[int],
    vectors: Tensor,
    known: Mapping[str, Sequence[Sequence[str]]],
) -> dict[str, LabelGroups]:
    """Where each condition's labels come from. known: those that are given, of each latent."""

    how = LabelSampling(
        Sampling(
            settings.label_temperature,
            settings.label_top_p,
            settings.label_repetition_penalty,
            settings.label_tokens,
        ),
        settings.labels_per_scale,
        settings.label_cut,
    )
    sources: dict[str, LabelGroups] = {}
    labeller = None
    adapted = {name for name, one in CONDITIONS.items() if one.through == "adapter"}
    if settings.adapter is not None and adapted & {*wanted}:
        labeller = _labeller(settings, model, load_adapter(settings.adapter), None)
    for name in wanted:
        if name in known:
            each_once = name == "training" and settings.labels_each_once
            sources[name] = GivenLabels(known[name], None if each_once else len(settings.scales))
        elif name == "untrained":
            prompt = None if labeller is None else labeller.prompt.prompt
            untrained = Untrained(model, settings.untrained_scale_unit)
            plain = _labeller(settings, model, untrained.adapter(), prompt)
            sources[name] = GeneratedLabels(
                plain, vectors, latents, settings.untrained_scales, how, settings.seed
            )
        elif labeller is not None:
            read = CONDITIONS[name].vectors(vectors, settings.seed)
            sources[name] = GeneratedLabels(
                labeller, read, latents, settings.scales, how, settings.seed
            )
    return sources
