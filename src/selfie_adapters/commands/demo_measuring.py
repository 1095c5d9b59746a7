"""What `selfie demo` measures: a sentence read token by token, and test concepts named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from torch import Tensor

from selfie_adapters.adapters import Adapter
from selfie_adapters.commands.demo_settings import READ_AT, SENTENCE, CapturePoint
from selfie_adapters.evaluation.naming.conditions import ADAPTER, Keep, Known, Naming
from selfie_adapters.evaluation.naming.results import position_name
from selfie_adapters.evaluation.naming.verdicts import Named, comparisons
from selfie_adapters.labelling.confidence import Calibration, Confidence
from selfie_adapters.model import FrozenModel
from selfie_adapters.progress import StepProgress
from selfie_adapters.reading.plan import plan_reading
from selfie_adapters.reading.read import Reading, chat_of_reading, read_prompt
from selfie_adapters.sources.topics.topic import Topic


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
