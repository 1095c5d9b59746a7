"""When to believe a label: a calibrated probability that it is right, and when to abstain.

Fitted on held-out labelled vectors: each is labelled as the job will label, and the answer counts
as right if it is one of the vector's own labels. The probability is a logistic function of what
the labelling itself knows: the gain over the zero vector and the likelihood, nats per token, and,
where several samples are drawn, how many of them agree.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from selfie_adapters.errors import DataError
from selfie_adapters.extras import extra
from selfie_adapters.files import existing_file, read_json, write_json
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
        """Probability that a label is right. Both in nats per token; agreement in (0, 1]."""
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

    def other_drawing(self, settings: dict[str, Any]) -> str | None:
        """In what labels drawn with `settings` differ from those this was fitted on; None if not.

        More samples or another scale move the scores, and with them what they mean.
        """
        for key, now in settings.items():
            if self.settings.get(key) != now:
                return f"{key} {self.settings.get(key)!r}, not {now!r}"
        return None

    def save(self, path: str | Path) -> None:
        """Write as JSON, atomically."""
        write_json(path, asdict(self))

    @classmethod
    def load(cls, path: str | Path) -> Confidence:
        """Read what `save` wrote. Raises MissingFileError, or DataError naming the file."""
        file = existing_file(path)
        content = read_json(file)
        try:
            found = cls(**content)
            numbers = [found.intercept, found.threshold, *found.weights.values()]
            unknown = set(found.weights) - set(FEATURES)
            if unknown or not all(math.isfinite(number) for number in numbers):
                raise ValueError(f"weights {found.weights}")
        except (ValueError, TypeError, AttributeError, OverflowError) as error:
            raise DataError(
                f"{file}: not a confidence file ({error}). "
                "Make one: selfie confidence fit TRAINING_FILE --adapter … --model …"
            ) from error
        return found


def beside(adapter_file: str | Path) -> Path:
    """Where an adapter's confidence file is: {adapter}.confidence.json in the same folder."""
    path = Path(adapter_file)
    return path.with_name(f"{path.stem}.confidence.json")


@dataclass(frozen=True)
class Evidence:
    """What labelling knew of some labels: one row per label, columns as FEATURES. [n, 3]"""

    values: np.ndarray

    @classmethod
    def of(cls, labels: Sequence[Label], agreement: Sequence[float]) -> Evidence:
        rows = [
            (label.gain, label.log_prob / label.tokens, share)
            for label, share in zip(labels, agreement, strict=True)
        ]
        return cls(np.array(rows, dtype=np.float64).reshape(-1, len(FEATURES)))


def fit_confidence(
    evidence: Evidence,
    right: Sequence[bool],
    controls: dict[str, Evidence],
    precision: float,
    control_rate: float = 0.05,
    settings: dict[str, Any] | None = None,
) -> Confidence:
    """Calibrate on labels whose truth is known, and choose when to abstain.

    The threshold is the lowest at which, among the labels shown, the share that is right is at
    least `precision`, and of each kind of `controls` at most `control_rate` is shown. Both are
    judged on labels that the probability was not fitted on (five folds; controls never are).
    Raises DataError if there are too few labels of either kind, or no threshold does it.
    """
    with extra("confidence", "Fitting a confidence"):
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import StratifiedKFold, cross_val_predict
    truth = np.asarray(right, dtype=bool)
    if min(truth.sum(), (~truth).sum()) < 2 * FOLDS:
        raise DataError(
            f"{truth.sum()} of {truth.size} labels are right; at least {2 * FOLDS} right and "
            f"{2 * FOLDS} wrong ones are needed to calibrate. Label more held-out vectors."
        )
    used = evidence.values.std(axis=0) > 1e-9  # a single sample always agrees with itself
    centre, spread = evidence.values[:, used].mean(axis=0), evidence.values[:, used].std(axis=0)
    data = (evidence.values[:, used] - centre) / spread
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    unseen = np.asarray(
        cross_val_predict(LogisticRegression(), data, truth, cv=folds, method="predict_proba")
    )[:, 1]
    model = LogisticRegression().fit(data, truth)
    weights = model.coef_[0] / spread
    names = [name for name, use in zip(FEATURES, used, strict=True) if use]
    fitted = Confidence(
        {name: float(weight) for name, weight in zip(names, weights, strict=True)},
        float(model.intercept_[0] - (weights * centre).sum()),
        threshold=1.0,
        settings=settings or {},
    )
    meaningless = {
        kind: np.array([fitted.score(*row) for row in some.values])
        for kind, some in controls.items()
    }
    threshold = _threshold(unseen, truth, meaningless, precision, control_rate)
    shown: np.ndarray = unseen >= threshold
    measured = {
        "vectors": int(truth.size),
        "right": int(truth.sum()),
        "shown": int(shown.sum()),
        "shown_and_right": int((shown & truth).sum()),
        "asked_precision": precision,
        "asked_control_rate": control_rate,
        "controls": {
            kind: {"vectors": int(p.size), "shown": int(np.sum(p >= threshold))}
            for kind, p in meaningless.items()
        },
        "brier": float(((unseen - truth) ** 2).mean()),
        "reliability": reliability(unseen, truth),
    }
    return replace(fitted, threshold=float(threshold), measured=measured)


def reliability(
    probabilities: np.ndarray, right: np.ndarray, bins: int = 10
) -> list[dict[str, float]]:
    """Labels sorted by probability in `bins` of like size: predicted mean, share right, count."""
    order = np.argsort(probabilities, kind="stable")
    return [
        {
            "predicted": float(probabilities[some].mean()),
            "right": float(right[some].mean()),
            "labels": int(some.size),
        }
        for some in np.array_split(order, bins)
        if some.size
    ]


def _threshold(
    unseen: np.ndarray,
    truth: np.ndarray,
    controls: dict[str, np.ndarray],
    precision: float,
    control_rate: float,
) -> float:
    fewest = max(2 * FOLDS, truth.size // 50)  # a lucky handful proves nothing
    best = 0.0
    for threshold in np.sort(unseen):
        shown = unseen >= threshold
        if shown.sum() < fewest:
            break
        share = float(truth[shown].mean())
        if any(np.mean(p >= threshold) > control_rate for p in controls.values()):
            continue
        best = max(best, share)
        if share >= precision:
            return float(threshold)
    raise DataError(
        f"no threshold makes {precision:.0%} of the labels shown right with at most "
        f"{control_rate:.0%} of the controls shown; the best reaches {best:.0%} (at least "
        f"{fewest} labels shown). Ask for a lower precision."
    )
