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

from selfie_adapters.adapters import Adapter
from selfie_adapters.adapters.specialists import Place
from selfie_adapters.config.labelling import UNTRAINED_SCALES
from selfie_adapters.errors import DataError
from selfie_adapters.evaluation.baselines import Baseline, untrained_readers
from selfie_adapters.evaluation.controls import (
    NOWHERE,
    SoftTokenReader,
    Untrained,
    best_scale,
    other_topics,
    random_directions,
)
from selfie_adapters.evaluation.naming.verdicts import ADAPTER, Named
from selfie_adapters.inference.label_batches import checked_labels
from selfie_adapters.labelling import Label, Labeller
from selfie_adapters.labelling.choosing import judge, no_concept_label
from selfie_adapters.labelling.confidence import Calibration
from selfie_adapters.model import FrozenModel, SoftPrompt
from selfie_adapters.progress import StepProgress, silent
from selfie_adapters.sources.topics.topic import Topic
from selfie_adapters.training import Objective

ZERO, SHUFFLED, RANDOM, UNTRAINED = (
    "zero vector",
    "shuffled",
    "random",
    "untrained",
)
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


@dataclass(frozen=True)
class Readers:
    """What reads the vectors of one section: the adapter, and what does without it.

    untrained_scales: losses at the scales tried.
    """

    adapter: SoftTokenReader
    others: Sequence[Baseline]
    untrained_scales: dict[float, float]

    @property
    def all(self) -> list[Baseline]:
        return [self.adapter, *self.others]


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
        progress: StepProgress = silent,
        name: str = ADAPTER,
    ) -> None:
        """prompt: None takes the adapter's own. no_concept: the label that states that there is
        none; None takes the adapter's. keep: what keeps finished work. name: what the adapter is
        called, where there are several; its controls are "{name}: {control}". Raises like
        `Labeller`.
        """
        self.model, self.seed, self.keep, self.progress = model, seed, keep, progress
        self.adapter_name = name
        self._labeller = Labeller(model, adapter, prompt)
        self._unit_input = adapter.normalize_input
        self.no_concept = no_concept or no_concept_label(adapter)
        self._untrained = Untrained(model)
        self._plain = self._untrained.labeller(self._labeller.prompt.prompt)

    def own(self, control: str) -> str:
        """What a control of this adapter is called."""
        return control if self.adapter_name == ADAPTER else f"{self.adapter_name}: {control}"

    def _reader(self, place: Place) -> SoftTokenReader:
        meaning = "greedy label by the adapter"
        return SoftTokenReader(self.adapter_name, meaning, self._labeller, 1.0, place)

    def readers(
        self, training: Known, choosing: Known, where: str = "", place: Place = NOWHERE
    ) -> Readers:
        """What reads the vectors of a section.

        training: its training vectors, for the ridge probe; choosing: vectors that are not measured
        on, for the untrained scale. where: the section's name, in units of work. place: block and
        kind of position of its vectors.
        """
        tried = self._untrained_losses(choosing.first(CHOOSE_ON), where)
        scale, _ = best_scale(UNTRAINED_SCALES, tried.__getitem__)
        meaning = self._untrained.meaning(scale)
        baselines = untrained_readers(self.model, training.vectors, training.names, self.seed)
        untrained = SoftTokenReader(UNTRAINED, meaning, self._plain, scale)
        return Readers(self._reader(place), [untrained, *baselines], tried)

    def alone(self, place: Place = NOWHERE) -> Readers:
        """The adapter without the others, which are the same for all adapters of this prompt."""
        return Readers(self._reader(place), (), {})

    def labels(self, where: str, vectors: Tensor, place: Place = NOWHERE) -> list[Label]:
        """The adapter's label of each vector [n, d_model]; where: of which vectors."""
        reader = self._reader(place)
        found = self._in_batches(
            f"{where}: {self.adapter_name}",
            vectors,
            lambda some: [_kept(label) for label in reader.labels(some)],
        )
        return [_label(*values) for values in found]

    def shown(self, labels: Sequence[Label], calibration: Calibration | None) -> list[bool]:
        """Which labels of the adapter are not withheld. calibration: of their place, if any."""
        return [judge(one, calibration, self.no_concept).withheld is None for one in labels]

    def name(
        self,
        readers: Readers,
        vectors: Tensor,
        topics: Sequence[Topic],
        where: str = "",
        calibration: Calibration | None = None,
    ) -> list[Named]:
        """Every condition on the same vectors, the adapter first.

        vectors: [n, d_model]; topics: one per vector. calibration: of the adapter's labels, for
        what is shown. Raises DataError for a single topic.
        """
        place = readers.adapter.place
        own = self.labels(where, vectors, place)
        order = other_topics(np.array([topic.title for topic in topics]), self.seed)
        zero = self.labels(self._of(place, "zero vector"), torch.zeros_like(vectors[:1]), place)
        meant = {
            self.adapter_name: (readers.adapter.meaning, own),
            self.own(ZERO): ("the adapter without a vector: one label", zero * len(own)),
            self.own(SHUFFLED): (
                "the adapter's label of another topic's vector",
                [own[i] for i in order],
            ),
            self.own(RANDOM): (
                "the adapter on random directions",
                self._random_labels(where, vectors, place),
            ),
        }
        found = [
            Named.judged(
                condition,
                meaning,
                [label.text for label in labels],
                topics,
                self.no_concept,
                self.shown(labels, calibration),
            )
            for condition, (meaning, labels) in meant.items()
        ]
        for reader in readers.others:
            words = self._in_batches(f"{where}: {reader.name}", vectors, reader.words)
            found.append(Named.judged(reader.name, reader.meaning, words, topics, self.no_concept))
        return found

    def _of(self, place: Place, unit: str) -> str:
        """The name of a unit of work that all positions without a specialist share."""
        adapter = self._labeller.adapter
        return unit if adapter.at(*place) is adapter else f"{unit} at {place}"

    def _random_labels(self, where: str, vectors: Tensor, place: Place) -> list[Label]:
        if not self._unit_input:
            norms = vectors.norm(dim=-1, keepdim=True)
            drawn = random_directions(len(vectors), vectors.shape[1], self.seed) * norms
            return self.labels(f"{where}: random", drawn, place)
        # Lengths do not matter: all sections share the labels of whole batches of directions.
        whole = -(-len(vectors) // BATCH) * BATCH
        drawn = random_directions(whole, vectors.shape[1], self.seed)
        return self.labels(self._of(place, "random"), drawn, place)[: len(vectors)]

    def _in_batches(
        self, unit: str, vectors: Tensor, make: Callable[[Tensor], list[Any]]
    ) -> list[Any]:
        found: list[Any] = []
        for start in range(0, len(vectors), BATCH):
            self.progress(unit, start, len(vectors))
            some = vectors[start : start + BATCH]
            key = f"{unit}/{start // BATCH}"
            found += self.keep(key, len(some), lambda some=some: make(some))
        self.progress(unit, len(vectors), len(vectors))
        return found

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


def _kept(label: Label) -> list[str | float]:
    """What decides about a label, as JSON values."""
    return [label.text, label.log_prob, label.zero_log_prob, label.tokens]


def _label(text: str, log_prob: float, zero_log_prob: float, tokens: int) -> Label:
    """A label of which `_kept` kept these values."""
    return Label(text, text, 1.0, 0, 0, log_prob, tokens, True, zero_log_prob)


def name_vectors(
    model: FrozenModel,
    adapter: Adapter,
    prompt: SoftPrompt | None,
    vectors: Tensor,
    topics: Sequence[Topic],
    training: Known,
    choosing: Known | None = None,
    calibration: Calibration | None = None,
    seed: int = 0,
    progress: StepProgress = silent,
) -> list[Named]:
    """Labels of held-out vectors under every condition, judged; the adapter's come first.

    prompt: None takes the adapter's own. vectors: [n, d_model], centered as the adapter's training
    vectors were; topics: one per vector. training: vectors that are not measured on, of the same
    block and position kind, for the ridge probe. choosing: others for the untrained scale; None
    takes training ones. calibration: what withholds labels of the adapter. Raises like `Labeller`,
    and DataError for a single topic.
    """
    naming = Naming(model, adapter, prompt, seed=seed, progress=progress)
    readers = naming.readers(training, choosing or training)
    return naming.name(readers, vectors, topics, calibration=calibration)
