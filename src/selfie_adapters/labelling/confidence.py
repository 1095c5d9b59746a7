"""When to believe a label: a calibrated probability that it is right, and when to abstain.

Fitted on held-out labelled vectors: each is labelled as the job will label, and the answer counts
as right if it is one of the vector's own labels. The probability is a logistic function of what
the labelling itself knows: the gain over the zero vector and the likelihood, nats a token, and,
where several samples are drawn, how many of them agree.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from selfie_adapters.errors import DataError
from selfie_adapters.files import existing_file, write_json
from selfie_adapters.labelling.labeller import Label

FEATURES = ("gain", "log_prob", "agreement")
FOLDS = 5


@dataclass(frozen=True)
class Confidence:
    """P(label is right) = 1 / (1 + exp(-(intercept + Σ weight · feature))), and a threshold.

    weights: by feature; a feature that was not fitted has weight 0. threshold: a label whose
    probability is lower is "no concept". settings: how the labels it was fitted on were drawn; it
    holds for labels drawn like that. measured: what the held-out vectors showed, for the reader.
    """

    weights: dict[str, float]
    intercept: float
    threshold: float
    settings: dict[str, Any] = field(default_factory=dict)
    measured: dict[str, Any] = field(default_factory=dict)

    def score(
        self, gain_per_token: float, log_prob_per_token: float, agreement: float = 1.0
    ) -> float:
        """Probability that a label is right. Both in nats a token; agreement in (0, 1]."""
        values = (gain_per_token, log_prob_per_token, agreement)
        total = self.intercept
        for name, value in zip(FEATURES, values, strict=True):
            total += self.weights.get(name, 0.0) * value
        return 1.0 / (1.0 + math.exp(-max(-60.0, min(60.0, total))))

    def of(self, label: Label, agreement: float = 1.0) -> float:
        """Probability that `label` is right."""
        return self.score(label.gain, label.log_prob / label.tokens, agreement)

    def believes(self, probability: float) -> bool:
        """Whether a label of this probability is to be shown; otherwise: no concept."""
        return probability >= self.threshold

    def save(self, path: str | Path) -> None:
        """Write as JSON, whole or not at all."""
        write_json(path, asdict(self))

    @classmethod
    def load(cls, path: str | Path) -> Confidence:
        """Read what `save` wrote. Raises MissingFileError, or DataError naming the file."""
        file = existing_file(path)
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            found = cls(**content)
            numbers = [found.intercept, found.threshold, *found.weights.values()]
            unknown = set(found.weights) - set(FEATURES)
            if unknown or not all(math.isfinite(number) for number in numbers):
                raise ValueError(f"weights {found.weights}")
        except (ValueError, TypeError, AttributeError) as error:
            raise DataError(
                f"{file}: not a confidence file ({error}). "
                "Make one: selfie confidence fit TRAINING_FILE --adapter … --model …"
            ) from error
        return found


def beside(adapter_file: str | Path) -> Path:
    """Where an adapter's confidence lies: {adapter}.confidence.json in the same folder."""
    path = Path(adapter_file)
    return path.with_name(f"{path.stem}.confidence.json")
