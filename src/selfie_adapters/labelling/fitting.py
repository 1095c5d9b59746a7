"""Fit a calibration to labels whose truth is known, and choose the threshold of what is shown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from selfie_adapters.errors import ConfigError, DataError
from selfie_adapters.extras import extra
from selfie_adapters.labelling.confidence import AGREEMENT, FEATURES, Calibration, Confidence
from selfie_adapters.labelling.label import Label
from selfie_adapters.statistics import Z95, quality, wilson_bounds

FOLDS = 5
FEWEST = 2 * FOLDS
"""Labels of either kind, right and wrong, below which no logistic function is fitted."""

FEWEST_OWN = 100
"""Labels of vectors with a concept that a place needs to be judged by its own labels alone."""


@dataclass(frozen=True)
class Evidence:
    """What labelling knew of some labels.

    values: [n, 3], one row per label, columns as FEATURES. silent: [n], where the answer is "no
    concept": such a label is never shown, and its values do not matter.
    """

    values: np.ndarray
    silent: np.ndarray

    @classmethod
    def of(
        cls,
        labels: Sequence[Label],
        agreement: Sequence[float],
        silent: Sequence[bool] | None = None,
    ) -> Evidence:
        """silent: None where no label is the answer "no concept"."""
        rows = [
            (label.gain, label.likelihood, share)
            for label, share in zip(labels, agreement, strict=True)
        ]
        values = np.array(rows, dtype=np.float64).reshape(-1, len(FEATURES))
        known = [False] * len(values) if silent is None else silent
        return cls(values, np.array(known, dtype=bool))

    @classmethod
    def joined(cls, parts: Sequence[Evidence]) -> Evidence:
        """All of `parts`, at least one, in their order."""
        values, silent = ([getattr(part, name) for part in parts] for name in ("values", "silent"))
        return cls(np.concatenate(values), np.concatenate(silent))

    def only(self, rows: np.ndarray) -> Evidence:
        """Those that `rows` picks."""
        return Evidence(self.values[rows], self.silent[rows])

    def __len__(self) -> int:
        return len(self.silent)


@dataclass(frozen=True)
class Sample:
    """Labels of one place, or of all.

    evidence, right: of held-out vectors. empty: which of them hold no concept (`right` is False
    there). controls: evidence of vectors that mean nothing, by their kind; they decide the
    threshold and are never fitted on.
    """

    evidence: Evidence
    right: np.ndarray
    empty: np.ndarray
    controls: Mapping[str, Evidence]


@dataclass(frozen=True)
class Fitted:
    """A calibration and what the sample showed. best: the largest precision that a threshold
    proves, for messages."""

    calibration: Calibration
    measured: dict[str, Any]
    best: float


def fit_calibration(sample: Sample, precision: float, control_rate: float) -> Fitted:
    """The logistic function, and the lowest threshold that keeps what is asked on new labels.

    Kept means: among the labels shown, the lower end of the 95 % Wilson interval of the share that
    is right is at least `precision`; of the vectors that mean nothing (`controls` and those of the
    sample without a concept, together, and each kind of which there are enough to prove it), the
    upper end of the interval of the share that is shown is at most `control_rate`. Both are judged
    on probabilities of labels that the function was not fitted on (five folds; controls never are).
    Where no threshold does it, the calibration shows nothing (threshold None).

    With fewer than FEWEST right or wrong labels, the probability is their share for every label.
    Where agreement is a feature, `measured` has `without_agreement`: what gain and likelihood alone
    reach. Raises DataError without the extra `confidence`.
    """
    heard = ~sample.evidence.silent
    truth = np.asarray(sample.right, dtype=bool) & heard
    fitted, unseen = _logistic(sample.evidence.values[heard], truth[heard])
    probabilities = np.full(len(truth), -1.0)  # a silent label is below every threshold
    probabilities[heard] = unseen
    controls = {kind: _scores(fitted, some) for kind, some in sample.controls.items()}
    if sample.empty.any():
        controls = {"no concept": probabilities[sample.empty], **controls}
    threshold, best = _threshold(
        probabilities, truth, list(controls.values()), precision, control_rate
    )
    fitted = replace(fitted, threshold=threshold)
    shown = probabilities >= (math.inf if threshold is None else threshold)
    measured = {
        "vectors": int(truth.size),
        "right": int(truth.sum()),
        "no_concept": int(sample.evidence.silent.sum()),
        "shown": int(shown.sum()),
        "shown_and_right": int((shown & truth).sum()),
        "asked_precision": precision,
        "asked_control_rate": control_rate,
        "controls": {
            kind: {
                "vectors": int(p.size),
                "shown": int(np.sum(p >= (math.inf if threshold is None else threshold))),
            }
            for kind, p in controls.items()
        },
        **quality(unseen, truth[heard]),
    }
    if AGREEMENT in fitted.weights:
        others = sample.evidence.values[heard].copy()
        others[:, FEATURES.index(AGREEMENT)] = 1.0
        found = quality(_logistic(others, truth[heard])[1], truth[heard])
        measured["without_agreement"] = {name: found[name] for name in ("auroc", "nll", "ece")}
    return Fitted(fitted, measured, best)


def own_or_common(sample: Sample, fitted: Fitted, common: Calibration, precision: float) -> Fitted:
    """What holds for a place: its own calibration, or the common one where that shows nothing.

    The common one holds where the place has fewer than FEWEST_OWN labels to be judged by, unless
    those contradict it: the upper end of the 95 % interval of the share that is right, among those
    that it shows, is below `precision`. `measured` then has `common`: true.
    """
    few = int((~sample.empty).sum()) < FEWEST_OWN
    if fitted.calibration.threshold is not None or common.threshold is None or not few:
        return fitted
    shown = _scores(common, sample.evidence) >= common.threshold
    count, right = int(shown.sum()), int((shown & sample.right).sum())
    if count and wilson_bounds(np.array([right]), np.array([count]))[1] < precision:
        return fitted
    controls = {kind: _scores(common, some) for kind, some in sample.controls.items()}
    if sample.empty.any():
        controls = {"no concept": _scores(common, sample.evidence.only(sample.empty)), **controls}
    measured = {
        **fitted.measured,
        "shown": count,
        "shown_and_right": right,
        "controls": {
            kind: {"vectors": int(p.size), "shown": int((p >= common.threshold).sum())}
            for kind, p in controls.items()
        },
        "common": True,
    }
    return Fitted(common, measured, fitted.best)


def fit_confidence(
    evidence: Evidence,
    right: Sequence[bool],
    controls: Mapping[str, Evidence],
    precision: float,
    control_rate: float = 0.05,
    settings: dict[str, Any] | None = None,
) -> Confidence:
    """`fit_calibration` for vectors that are all of one place, each with a concept.

    Raises DataError if fewer than FEWEST labels are right, and where no threshold keeps what is
    asked.
    """
    truth = np.asarray(right, dtype=bool)
    sample = Sample(evidence, truth, np.zeros(truth.size, dtype=bool), controls)
    check_enough(sample)
    if controls:
        check_controls(sum(map(len, controls.values())), control_rate)
    fitted = fit_calibration(sample, precision, control_rate)
    check_shown([fitted], precision, control_rate)
    one = fitted.calibration
    return Confidence(one.weights, one.intercept, one.threshold, settings or {}, fitted.measured)


def check_enough(sample: Sample) -> None:
    """Raise DataError if fewer than FEWEST labels are right."""
    right = int((sample.right & ~sample.evidence.silent).sum())
    if right < FEWEST:
        raise DataError(
            f"{right} of {len(sample.right)} labels are right; at least {FEWEST} right ones are "
            "needed to calibrate. Label more held-out vectors."
        )


def check_controls(count: int, control_rate: float) -> None:
    """Raise DataError if so few vectors that mean nothing cannot prove the rate."""
    needed = controls_needed(control_rate)
    if count < needed:
        raise DataError(
            f"{count} control vectors are too few to prove that at most {control_rate:.0%} "
            f"of them show a label: at least {needed} are needed (--controls)."
        )


def check_shown(fits: Sequence[Fitted], precision: float, control_rate: float) -> None:
    """Raise DataError if every calibration shows nothing."""
    if all(one.calibration.threshold is None for one in fits):
        best = max(one.best for one in fits)
        raise DataError(
            f"no threshold makes {precision:.0%} of the labels shown right with at most "
            f"{control_rate:.0%} of the controls shown, as the ends of 95 % intervals; the best "
            f"reaches {best:.0%}. Request a lower precision, or label more held-out vectors."
        )


def controls_needed(control_rate: float) -> int:
    """How many vectors that mean nothing prove the rate if none of them is shown.

    Raises ConfigError for a rate that is no share above 0.
    """
    if not 0 < control_rate <= 1:
        raise ConfigError(f"control rate {control_rate}: a share above 0, at most 1, is expected.")
    return max(0, math.ceil(Z95**2 * (1 - control_rate) / control_rate))


def _scores(calibration: Calibration, evidence: Evidence) -> np.ndarray:
    """Probabilities of labels, -1 for silent ones, which are below every threshold: [n]."""
    rows = zip(evidence.values, evidence.silent, strict=True)
    return np.array([-1.0 if silent else calibration.score(*row) for row, silent in rows])


def _logistic(values: np.ndarray, truth: np.ndarray) -> tuple[Calibration, np.ndarray]:
    """The function fitted to all labels, and each label's probability by one that has not seen it.

    values: [n, 3]; truth, and what is returned: [n].
    """
    with extra("confidence", "Fitting a confidence"):
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import StratifiedKFold, cross_val_predict
    if min(truth.sum(), (~truth).sum()) < FEWEST:
        share = (truth.sum() + 0.5) / (truth.size + 1)
        same = Calibration({}, float(np.log(share / (1 - share))), None)
        return same, np.full(truth.size, same.score(0.0, 0.0))
    used = values.std(axis=0) > 1e-9  # a single sample always agrees with itself
    center, spread = values[:, used].mean(axis=0), values[:, used].std(axis=0)
    data = (values[:, used] - center) / spread
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    unseen = np.asarray(
        cross_val_predict(LogisticRegression(), data, truth, cv=folds, method="predict_proba")
    )[:, 1]
    model = LogisticRegression().fit(data, truth)
    weights = model.coef_[0] / spread
    names = [name for name, use in zip(FEATURES, used, strict=True) if use]
    fitted = Calibration(
        {name: float(weight) for name, weight in zip(names, weights, strict=True)},
        float(model.intercept_[0] - (weights * center).sum()),
        None,
    )
    return fitted, unseen


def _threshold(
    probabilities: np.ndarray,
    truth: np.ndarray,
    controls: Sequence[np.ndarray],
    precision: float,
    control_rate: float,
) -> tuple[float | None, float]:
    """The lowest threshold that keeps both bounds, None without one; and the best precision that
    any threshold proves within the control rate. Probabilities below 0 are of silent labels."""
    candidates = np.unique(probabilities[probabilities >= 0])
    if not candidates.size:
        return None, 0.0
    ordered = np.argsort(-probabilities, kind="stable")
    counts = len(probabilities) - np.searchsorted(np.sort(probabilities), candidates)
    right = np.cumsum(truth[ordered])[counts - 1]
    kept, _ = wilson_bounds(right, counts)
    allowed = np.ones(candidates.size, dtype=bool)
    enough = [one for one in controls if one.size >= controls_needed(control_rate)]
    for some in [*enough, np.concatenate(controls)] if controls else []:
        above = some.size - np.searchsorted(np.sort(some), candidates)
        allowed &= wilson_bounds(above, np.full(candidates.size, some.size))[1] <= control_rate
    best = float(kept[allowed].max(initial=0.0))
    good = candidates[allowed & (kept >= precision)]
    return (float(good.min()) if good.size else None), best
