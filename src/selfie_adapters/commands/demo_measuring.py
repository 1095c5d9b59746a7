"""What `selfie demo` measures: a sentence read token by token, and test concepts named.

Concepts are those of the package; their vectors are captured here, minus the shipped means.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from torch import Tensor

from selfie_adapters.adapters import Adapter
from selfie_adapters.commands.demo_settings import CHAT, READ_AT, SENTENCE, CapturePoint, Size
from selfie_adapters.config.prepare import TopicSettings
from selfie_adapters.dataset.schema import Split
from selfie_adapters.evaluation.naming.conditions import ADAPTER, Keep, Known, Naming
from selfie_adapters.evaluation.naming.results import position_name
from selfie_adapters.evaluation.naming.verdicts import Named, comparisons
from selfie_adapters.labelling.centering import load_mean
from selfie_adapters.labelling.confidence import Calibration, Confidence
from selfie_adapters.model import FrozenModel
from selfie_adapters.progress import StepProgress
from selfie_adapters.reading.plan import plan_reading
from selfie_adapters.reading.read import Reading, chat_of_reading, read_prompt
from selfie_adapters.sources.topics.reading import packaged_topics, topic_vectors
from selfie_adapters.sources.topics.sites import topic_sites
from selfie_adapters.sources.topics.topic import Topic


@dataclass(frozen=True)
class Concepts:
    """Concepts of the package by split, drawn at random, the same in every run."""

    train: list[Topic]
    val: list[Topic]
    test: list[Topic]

    @classmethod
    def drawn(cls, size: Size) -> Concepts:
        topics = packaged_topics()
        random.Random(0).shuffle(topics)

        def first(split: Split, count: int) -> list[Topic]:
            return [topic for topic in topics if topic.split == split][:count]

        return cls(first("train", size.train), first("val", size.val), first("test", size.test))


def captured(
    model: FrozenModel,
    topics: Sequence[Topic],
    place: CapturePoint,
    mean_file: Path,
    progress: Callable[[int], None] = lambda _done: None,
) -> Tensor:
    """One vector per topic, minus the shipped mean of the place: [n, d_model].

    Held-out topics are in sentences that contain no training topic. progress: called with how
    many more are done.
    """
    settings = TopicSettings(
        layers=(place.layer,),
        chat=CHAT,
        positions=(place.position,),
        frames_per_topic=1,
        no_concept=0.0,
    )
    splits: list[Split] = [topic.split or "train" for topic in topics]
    sites = topic_sites(model, topics, splits, settings, place.position)
    states = topic_vectors(model, sites.texts, settings.layers, sites.positions, progress)
    return states[:, 0] - load_mean(mean_file, place.layer, model.d_model, str(place.position))


@dataclass(frozen=True)
class Measured:
    """Every condition on the same test concepts at one place, the adapter first."""

    place: CapturePoint
    named: Sequence[Named]

    @property
    def title(self) -> str:
        """Such as: block 12, the concept's own token."""
        return f"block {self.place.layer}, {position_name(str(self.place.position))}"

    def compared(self) -> list[dict[str, Any]]:
        """The adapter minus each other condition, by right labels."""
        every = comparisons(self.named[0], self.named[1:])
        return [one for one in every if one["measure"] == "right"]

    def summary(self) -> dict[str, Any]:
        """What results.json holds of the place."""
        return {
            **asdict(self.place),
            "conditions": [one.summary() for one in self.named],
            "comparisons": comparisons(self.named[0], self.named[1:]),
        }

    def rows(self) -> list[dict[str, Any]]:
        """What labels.jsonl holds of the place: a row per condition and concept."""
        return [{**asdict(self.place), **row} for named in self.named for row in named.rows()]


def read_sentence(
    model: FrozenModel, adapter: Adapter, confidence: Confidence | None, mean_file: Path
) -> Reading:
    """`SENTENCE` at the blocks `READ_AT`, with the logit lens's words; not the chat format's own
    tokens."""
    chat, _ = chat_of_reading(model, [adapter], None, mean_file)
    tokens = plan_reading(model, SENTENCE, READ_AT, chat=chat).tokens
    start = "".join(token.text for token in tokens).index(SENTENCE)
    ends = accumulate(len(token.text) for token in tokens)
    inside = [i for i, end in enumerate(ends) if start < end <= start + len(SENTENCE)]
    return read_prompt(
        model,
        adapter,
        SENTENCE,
        READ_AT,
        inside,
        mean_file,
        confidence,
        chat,
        lens=True,
    )


def remembering() -> Keep:
    """Keeps finished work, so that the labels printed first are those that are counted later, and
    the labels of random directions are made once for all places."""
    found: dict[str, list[Any]] = {}

    def keep(unit: str, _count: int, make: Any) -> list[Any]:
        if unit not in found:
            found[unit] = make()
        return found[unit]

    return keep


class Measuring:
    """The shipped adapter and all its controls on test concepts."""

    def __init__(
        self,
        model: FrozenModel,
        adapter: Adapter,
        confidence: Confidence | None,
        topics: Sequence[Topic],
        progress: StepProgress,
    ) -> None:
        self.topics, self._confidence = topics, confidence
        self._naming = Naming(model, adapter, keep=remembering(), progress=progress)

    def adapter(self, place: CapturePoint, vectors: Tensor) -> Named:
        """The adapter's labels alone: vectors [topics, d_model] of the place."""
        labels = self._naming.labels(_unit(place), vectors, _key(place))
        shown = self._naming.shown(labels, self._calibration(place))
        texts = [label.text for label in labels]
        return Named.judged(ADAPTER, "", texts, self.topics, self._naming.no_concept, shown)

    def every(
        self, place: CapturePoint, vectors: Tensor, training: Tensor, names: Sequence[str]
    ) -> Measured:
        """All conditions. training [n, d_model], names: of training concepts at the same place."""
        known, unit = Known(training, names), _unit(place)
        readers = self._naming.readers(known, known, unit, _key(place))
        named = self._naming.name(readers, vectors, self.topics, unit, self._calibration(place))
        return Measured(place, named)

    def _calibration(self, place: CapturePoint) -> Calibration | None:
        if self._confidence is None:
            return None
        return self._confidence.at(*_key(place))


def _key(place: CapturePoint) -> tuple[int, str]:
    return place.layer, str(place.position)


def _unit(place: CapturePoint) -> str:
    return f"block {place.layer}, {position_name(str(place.position))}"
