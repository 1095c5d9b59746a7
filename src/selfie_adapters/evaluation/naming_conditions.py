"""The same vectors labelled by an adapter and by everything that it has to beat.

adapter        greedy labels of the vectors
zero vector    the one label that the adapter gives without a vector
shuffled       the adapter's label of another topic's vector
random         the adapter's labels of random directions with the vectors' norms
untrained      the unit vector times a scale in place of an adapter; the scale has the lowest loss
               on vectors of the choosing set
logit lens, cosine, ridge probe: one token each, without the question (`baselines`)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selfie_adapters.adapters import Adapter, create_adapter
from selfie_adapters.errors import DataError
from selfie_adapters.evaluation.baselines import Baseline, LogitLens, RidgeProbe, TokenCosine
from selfie_adapters.evaluation.naming import Named
from selfie_adapters.evaluation.spoken_labels import Progress, silent
from selfie_adapters.inference.label_batches import checked_labels
from selfie_adapters.inference.logit_lens import has_lens
from selfie_adapters.labelling import Labeller, score_candidates
from selfie_adapters.labelling.settings import UNTRAINED_SCALES
from selfie_adapters.model import FrozenModel, SoftPrompt
from selfie_adapters.model.fingerprint import mean_embedding_norm
from selfie_adapters.sources.topic import Topic
from selfie_adapters.training import Objective

ADAPTER, ZERO, SHUFFLED, RANDOM, UNTRAINED = (
    "adapter",
    "zero vector",
    "shuffled",
    "random",
    "untrained",
)
MAX_NEW_TOKENS = 20
CHOOSE_ON = 40
BATCH = 64

Keep = Callable[[str, int, Callable[[], list[Any]]], list[Any]]
"""Called with the name of a unit of work, how many results it has, and what makes them; returns
them, made now or kept from before."""


def made_now(_unit: str, _count: int, make: Callable[[], list[Any]]) -> list[Any]:
    """Nothing is kept."""
    return make()


@dataclass(frozen=True)
class Known:
    """Vectors [n, d_model] and the names of their topics."""

    vectors: Tensor
    names: Sequence[str]

    def first(self, count: int) -> Known:
        return Known(self.vectors[:count], self.names[:count])


class SoftTokenReader:
    """Greedy labels, and gains of names over the zero vector, through the model's question."""

    def __init__(self, name: str, meaning: str, labeller: Labeller, scale: float = 1.0) -> None:
        self.name, self.meaning = name, meaning
        self._labeller, self._scale = labeller, scale

    def words(self, vectors: Tensor) -> list[str]:
        """The label of each vector [n, d_model]."""
        found = self._labeller.label(
            vectors, (self._scale,), max_new_tokens=MAX_NEW_TOKENS, batch_size=BATCH
        )
        return [labels[0].text for labels in found]

    def scores(self, vectors: Tensor, names: Sequence[str]) -> Tensor:
        """Gain of each name under each vector, nats per token: [n, names]."""
        labeller = self._labeller
        soft = labeller.soft_tokens(vectors, self._scale)
        zero = labeller.soft_tokens(torch.zeros_like(vectors[:1]), self._scale)
        found, at_zero = (
            score_candidates(labeller.model, labeller.prompt, tokens, names)
            for tokens in (soft, zero)
        )
        return found.gain(at_zero)


@dataclass(frozen=True)
class Readers:
    """What reads the vectors of one section. untrained_scales: losses at the scales tried."""

    adapter: SoftTokenReader
    untrained: SoftTokenReader
    baselines: Sequence[Baseline]
    untrained_scales: dict[float, float]

    @property
    def all(self) -> list[Baseline]:
        return [self.adapter, self.untrained, *self.baselines]


class Naming:
    """One adapter and its controls, for any number of sections of vectors."""

    def __init__(
        self,
        model: FrozenModel,
        adapter: Adapter,
        prompt: SoftPrompt | None = None,
        no_concept: str | None = None,
        seed: int = 0,
        keep: Keep = made_now,
        progress: Progress = silent,
    ) -> None:
        """prompt: None takes the adapter's own. no_concept: the label that states that there is
        none; None takes the adapter's. keep: what keeps finished work. Raises like `Labeller`.
        """
        self.model, self.seed, self.keep, self.progress = model, seed, keep, progress
        self._labeller = Labeller(model, adapter, prompt)
        self._unit_input = adapter.normalize_input
        bound = adapter.binding
        self.no_concept = no_concept or (None if bound is None else bound.no_concept)
        norm = mean_embedding_norm(model)
        plain = create_adapter("scale_only", model.d_model, init_scale=norm).to(model.device)
        self._plain = Labeller(model, plain, self._labeller.prompt.prompt)
        self._adapter = SoftTokenReader(ADAPTER, "greedy label by the adapter", self._labeller)

    def readers(self, training: Known, choosing: Known, where: str = "") -> Readers:
        """What reads the vectors of a section.

        training: its training vectors, for the ridge probe; choosing: vectors that are not measured
        on, for the untrained scale. where: the section's name, in units of work.
        """
        tried = self._untrained_losses(choosing.first(CHOOSE_ON), where)
        scale = min(tried, key=lambda one: tried[one])
        meaning = f"unit vector × {scale:g} mean embedding norms, without an adapter"
        baselines: list[Baseline] = [LogitLens(self.model)] if has_lens(self.model) else []
        baselines.append(TokenCosine(self.model))
        baselines.append(RidgeProbe(self.model, training.vectors, training.names, self.seed))
        untrained = SoftTokenReader(UNTRAINED, meaning, self._plain, scale)
        return Readers(self._adapter, untrained, baselines, tried)

    def labels(self, where: str, reader: Baseline, vectors: Tensor) -> list[str]:
        """The reader's label of each vector, batch by batch; where: of which vectors."""
        found: list[str] = []
        unit = f"{where}: {reader.name}"
        for start in range(0, len(vectors), BATCH):
            self.progress(unit, start, len(vectors))
            some = vectors[start : start + BATCH]
            key = f"{unit}/{start // BATCH}"
            found += self.keep(key, len(some), lambda some=some: reader.words(some))
        self.progress(unit, len(vectors), len(vectors))
        return found

    def adapter_labels(self, where: str, vectors: Tensor) -> list[str]:
        """The adapter's label of each vector."""
        return self.labels(where, self._adapter, vectors)

    def name(
        self, readers: Readers, vectors: Tensor, topics: Sequence[Topic], where: str = ""
    ) -> list[Named]:
        """Every condition on the same vectors, the adapter first.

        vectors: [n, d_model]; topics: one per vector. Raises DataError for a single topic.
        """
        units = np.array([topic.title for topic in topics])
        order = other_topics(units, self.seed)
        own = self.adapter_labels(where, vectors)
        zero = self.labels("zero vector", self._adapter, torch.zeros_like(vectors[:1]))
        labels = [
            (ADAPTER, self._adapter.meaning, own),
            (ZERO, "the adapter without a vector: one label", zero * len(own)),
            (SHUFFLED, "the adapter's label of another topic's vector", [own[i] for i in order]),
            (RANDOM, "the adapter on random directions", self._random_labels(where, vectors)),
        ]
        for reader in (readers.untrained, *readers.baselines):
            labels.append((reader.name, reader.meaning, self.labels(where, reader, vectors)))
        return [Named.judged(*one, topics, self.no_concept) for one in labels]

    def _random_labels(self, where: str, vectors: Tensor) -> list[str]:
        if not self._unit_input:
            norms = vectors.norm(dim=-1, keepdim=True)
            drawn = random_directions(len(vectors), vectors.shape[1], self.seed) * norms
            return self.labels(f"{where}: random", self._adapter, drawn)
        # Lengths do not matter: all sections share the labels of whole batches of directions.
        whole = -(-len(vectors) // BATCH) * BATCH
        drawn = random_directions(whole, vectors.shape[1], self.seed)
        return self.labels("random", self._adapter, drawn)[: len(vectors)]

    def _untrained_losses(self, known: Known, where: str) -> dict[float, float]:
        """Mean loss of the names at each scale, nats per token."""
        if not len(known.names):
            raise DataError(f"{where or 'naming'}: no vectors to choose the untrained scale on.")
        prompt = self._labeller.prompt

        def losses() -> list[float]:
            objective = Objective(self.model, prompt)
            tokens = checked_labels(self.model, prompt, known.names)
            everyone = torch.arange(len(known.names))
            softs = [self._plain.soft_tokens(known.vectors, scale) for scale in UNTRAINED_SCALES]
            with torch.no_grad():
                found = [objective.all_losses(soft, tokens, everyone).per_example for soft in softs]
            return [round(float(one.mean()), 6) for one in found]

        self.progress(f"{where}: choosing the untrained scale", 0, 1)
        found = self.keep(f"{where}: untrained scales", len(UNTRAINED_SCALES), losses)
        return dict(zip(UNTRAINED_SCALES, found, strict=True))


def name_vectors(
    model: FrozenModel,
    adapter: Adapter,
    prompt: SoftPrompt | None,
    vectors: Tensor,
    topics: Sequence[Topic],
    training: Known,
    choosing: Known | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> list[Named]:
    """Labels of held-out vectors under every condition, judged; the adapter's come first.

    prompt: None takes the adapter's own. vectors: [n, d_model], centred like those that the adapter
    was trained on; topics: one per vector. training: vectors that are not measured on, of the same
    block and position kind, for the ridge probe. choosing: others for the untrained scale; None
    takes training ones. Raises like `Labeller`, and DataError for a single topic.
    """
    naming = Naming(model, adapter, prompt, seed=seed, progress=progress)
    readers = naming.readers(training, choosing or training)
    return naming.name(readers, vectors, topics)


def other_topics(units: np.ndarray, seed: int) -> list[int]:
    """For each row, a row of another unit, drawn at random. Raises DataError for one unit."""
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
