"""When to believe a label: a calibrated probability that it is right, and when to abstain.

Fitted on held-out labelled vectors (labelling/fitting.py): each is labelled as the job will label,
and the answer counts as right if it is one of the vector's own labels. The probability is a
logistic function of what the labelling itself knows: the gain over the zero vector and the
likelihood, nats per token, and, with several samples, how many of them agree. Each layer
and kind of position has its own; another one, common to all, holds elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from selfie_adapters.config.labelling import BY_GAIN
from selfie_adapters.dataset.captured import kind_of_token
from selfie_adapters.errors import ConfigError, DataError
from selfie_adapters.files import existing_file, read_json, write_json
from selfie_adapters.labelling.label import Label

AGREEMENT = "agreement"
FEATURES = ("gain", "log_prob", AGREEMENT)


@dataclass(frozen=True)
class Calibration:
    """P(label is right) = 1 / (1 + exp(-(intercept + Σ weight · feature))), and a threshold.

    weights: by feature; a feature that was not fitted has weight 0. threshold: a label whose
    probability is lower is not to be shown; None: no label is, because no threshold keeps the
    precision that was asked for.
    """

    weights: dict[str, float]
    intercept: float
    threshold: float | None

    def score(
        self, gain_per_token: float, log_prob_per_token: float, agreement: float = 1.0
    ) -> float:
        """Probability that a label is right. Both in nats per token; agreement in (0, 1]."""
        values = (gain_per_token, log_prob_per_token, agreement)
        total = self.intercept
        for name, value in zip(FEATURES, values, strict=True):
            total += self.weights.get(name, 0.0) * value
        return 1.0 / (1.0 + math.exp(-max(-60.0, min(60.0, total))))

    def of(self, label: Label, agreement: float = 1.0) -> float:
        """Probability that `label` is right."""
        return self.score(label.gain, label.likelihood, agreement)

    def believes(self, probability: float) -> bool:
        """Whether a label of this probability is to be shown."""
        return self.threshold is not None and probability >= self.threshold

    def _check(self) -> None:
        """Raise ValueError for what no fit gives."""
        numbers = [self.intercept, *self.weights.values()]
        numbers += [] if self.threshold is None else [self.threshold]
        if set(self.weights) - set(FEATURES) or not all(math.isfinite(one) for one in numbers):
            raise ValueError(f"weights {self.weights}, {self.intercept}, {self.threshold}")


@dataclass(frozen=True)
class PlaceCalibration(Calibration):
    """The calibration of one layer and kind of position (dataset/captured.py; None where the
    vectors do not state it). measured: what the held-out vectors showed."""

    layer: int
    position: str | None
    measured: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Confidence(Calibration):
    """The calibrations of an adapter. Its own numbers are those common to all places.

    settings: how the labels it was fitted on were sampled; it holds for labels sampled like that.
    measured: what the held-out vectors showed, for the reader. places: calibrations by place; where
    there are none, or for other places, the common one holds.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    measured: dict[str, Any] = field(default_factory=dict)
    places: tuple[PlaceCalibration, ...] = ()

    def at(self, layer: int | None, kind: str | None) -> Calibration:
        """The calibration of vectors of a layer and kind of position, None where not known."""
        here = self._kinds(layer)
        if kind is None and len(here) == 1:
            (kind,) = here
        return here.get(kind, self)

    def at_token(self, layer: int, position: int, tokens: int) -> Calibration:
        """The calibration of a layer at a token (from 0) of a prompt of `tokens` tokens."""
        here = self._kinds(layer)
        try:
            return here[kind_of_token(position, tokens, here)]
        except KeyError:
            return self

    def _kinds(self, layer: int | None) -> dict[str | None, PlaceCalibration]:
        return {place.position: place for place in self.places if place.layer == layer}

    def other_drawing(self, settings: dict[str, Any]) -> str | None:
        """In what labels sampled with `settings` differ from those this was fitted on; None if not.

        More samples, another scale or another ranking move the scores, and with them what they
        mean.
        """
        for key, now in settings.items():
            was = self.settings.get(key, BY_GAIN if key == "ranking" else None)
            if was != now:
                return f"{key} {was!r}, not {now!r}"
        return None

    def fields(self) -> dict[str, Any]:
        """As it is stored: `places` only where there are some, as before they existed."""
        found = asdict(self)
        found["places"] = [asdict(place) for place in self.places]
        return found if self.places else {k: v for k, v in found.items() if k != "places"}

    def save(self, path: str | Path) -> None:
        """Write as JSON, atomically."""
        write_json(path, self.fields())

    @classmethod
    def load(cls, path: str | Path) -> Confidence:
        """Read what `save` wrote. Raises MissingFileError, or DataError naming the file."""
        file = existing_file(path)
        content = read_json(file)
        try:
            if not isinstance(content, dict):
                raise TypeError("an object is expected")
            listed = content.pop("places", [])
            if not isinstance(listed, list):
                raise TypeError(f"places {listed!r:.40}")
            places = tuple(PlaceCalibration(**place) for place in listed)
            found = cls(**content, places=places)
            for one in (found, *places):
                one._check()
            for place in places:
                if type(place.layer) is not int or not isinstance(place.position, str | None):
                    raise ValueError(f"layer {place.layer!r}, position {place.position!r}")
            if len({(place.layer, place.position) for place in places}) < len(places):
                raise ValueError("a layer and position that occurs twice")
        except (ValueError, TypeError, AttributeError, OverflowError) as error:
            raise DataError(
                f"{file}: not a confidence file ({error}). "
                "Make one: selfie confidence fit TRAINING_FILE --adapter … --model …"
            ) from error
        return found


def confidence_file(adapter_file: str | Path) -> Path:
    """Where an adapter's confidence file is: {adapter}.confidence.json in the same folder."""
    path = Path(adapter_file)
    return path.with_name(f"{path.stem}.confidence.json")


def usable_confidence(
    adapter_file: str | Path | None,
    path: str | Path | None,
    sampling: dict[str, Any],
    warn: Callable[[str], None],
) -> tuple[Path, Confidence] | None:
    """The confidence file `path`, else the one in the adapter's folder, with its content.

    sampling: how the labels are sampled; the file must have been fitted on labels sampled like
    that. Raises ConfigError if `path` was not; a file that is merely in the adapter's folder is
    then omitted, and `warn` called. None where there is no file to use.
    """
    if path is not None:
        file = Path(path)
    elif adapter_file is None or not (file := confidence_file(adapter_file)).is_file():
        return None
    found = Confidence.load(file)
    if (difference := found.other_drawing(sampling)) is None:
        return file, found
    message = f"{file} was fitted on labels sampled in another way ({difference})"
    if path is not None:
        raise ConfigError(f"{message}. Fit one for these: selfie confidence fit.")
    warn(f"{message}: labels get no confidence.")
    return None
