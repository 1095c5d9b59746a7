"""95 % intervals of means (bootstrap, deterministic for a seed) and of shares (by formula), and how
good probabilities are."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

Z95 = 1.959963984540054
"""The standard normal's quantile at 0.975: ends of 95 % intervals."""

RESAMPLES = 10_000
_DRAWS_AT_ONCE = 4_000_000  # 64 MB, however many values there are


@dataclass(frozen=True)
class Interval:
    """A mean, or a difference of means, and its 95 % interval; `n` values went in."""

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.2f} [{self.low:.2f}, {self.high:.2f}]"

    def above(self, other: Interval) -> bool:
        """Whether the intervals are apart, this one on the higher side."""
        return self.low > other.high

    @property
    def above_zero(self) -> bool:
        """Of a paired difference: whether the first beats the second."""
        return self.low > 0


def bootstrap_mean(values: Sequence[float] | np.ndarray, seed: int = 0) -> Interval:
    """Mean of `values` with the 2.5 and 97.5 percentiles of means of resamples.

    The unit that is resampled is one value; give one value a concept (or latent), not a token.
    Raises ValueError for no values.
    """
    column = np.asarray(values, dtype=np.float64).reshape(-1, 1)
    return bootstrap_of_means(column, lambda means: means[..., 0], seed)


def interval_of(
    values: Sequence[float | None] | np.ndarray, seed: int = 0
) -> dict[str, Any] | None:
    """`bootstrap_mean` of the values that are there, as JSON values; None where none is."""
    found = [float(value) for value in values if value is not None]
    return asdict(bootstrap_mean(found, seed)) if found else None


def bootstrap_of_means(
    columns: np.ndarray, of: Callable[[np.ndarray], np.ndarray], seed: int = 0
) -> Interval:
    """A number made of several means, such as a ratio, with its bootstrap interval.

    columns: [n, m], row = the unit that is resampled; of: means [..., m] → [...].
    Raises ValueError for no rows.
    """
    data = np.asarray(columns, dtype=np.float64)
    count = len(data)
    if not count:
        raise ValueError("a mean of no values")
    generator = np.random.default_rng(seed)
    means = np.empty((RESAMPLES, data.shape[1]))
    at_once = max(1, _DRAWS_AT_ONCE // count)
    for start in range(0, RESAMPLES, at_once):
        part = means[start : start + at_once]
        drawn = generator.integers(count, size=(len(part), count))
        for column in range(data.shape[1]):
            part[:, column] = data[:, column][drawn].mean(axis=1)
    low, high = np.percentile(of(means), [2.5, 97.5])
    return Interval(float(of(data.mean(axis=0))), float(low), float(high), count)


def bootstrap_difference(
    first: Sequence[float], second: Sequence[float], seed: int = 0
) -> Interval:
    """Mean of `first` minus mean of `second`, for groups that are not paired.

    Each group is resampled on its own; `n` is the size of the smaller one. Raises ValueError for no
    values.
    """
    if not (len(first) and len(second)):
        raise ValueError("a mean of no values")
    generator = np.random.default_rng(seed)
    means = []
    for values in (np.asarray(first), np.asarray(second)):
        drawn = generator.integers(len(values), size=(RESAMPLES, len(values)))
        means.append(values[drawn].mean(axis=1))
    low, high = np.percentile(means[0] - means[1], [2.5, 97.5])
    mean = float(np.mean(first)) - float(np.mean(second))
    return Interval(mean, float(low), float(high), min(len(first), len(second)))


def wilson_bounds(successes: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper ends of the 95 % Wilson score intervals of shares, [n] each; counts > 0.

    E. B. Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 22
    (1927).
    """
    share, shrink = successes / counts, 1 + Z95**2 / counts
    center = (share + Z95**2 / (2 * counts)) / shrink
    half = Z95 / shrink * np.sqrt(share * (1 - share) / counts + (Z95 / (2 * counts)) ** 2)
    return np.maximum(center - half, 0.0), np.minimum(center + half, 1.0)


def wilson(successes: float, n: float) -> Interval:
    """A share and its 95 % Wilson score interval, which is valid at 0 and at n too.

    successes of n; both may be fractions, such as sums of weights. Raises ValueError for no values,
    and for more successes than values.
    """
    if n <= 0:
        raise ValueError("a share of no values")
    if not 0 <= successes <= n * (1 + 1e-9):
        raise ValueError(f"{successes} successes of {n}")
    share = min(1.0, successes / n)
    bounds = wilson_bounds(np.array([share * n]), np.array([n], dtype=np.float64))
    # The bounds at 0 and 1 are exact, whatever rounding leaves of them.
    low = float(bounds[0][0]) if share > 0 else 0.0
    high = float(bounds[1][0]) if share < 1 else 1.0
    return Interval(share, low, high, round(n))


def share_interval(values: Sequence[float] | np.ndarray) -> Interval:
    """Mean of shares, one per unit, each from 0 to 1, and a 95 % interval that is valid at 0 and 1.

    Of zeros and ones it is the Wilson interval. Shares that vary less than zeros and ones of the
    same mean count as more values: Wilson's formula takes n · p(1 − p) / s² in place of n (N. Dean
    and M. Pagano, "Evaluating Confidence Interval Methods for Binomial Proportions in Clustered
    Surveys", J. Surv. Stat. Methodol. 3 (2015) 484). Where all are equal, it takes n. `n` of the
    result is the number of units. Raises ValueError for no values, and for one outside 0 to 1.
    """
    shares = np.asarray(values, dtype=np.float64)
    if not shares.size:
        raise ValueError("a mean of no values")
    if shares.min() < 0 or shares.max() > 1 + 1e-9:
        raise ValueError(f"shares from {shares.min():g} to {shares.max():g}")
    count, mean, variance = shares.size, float(min(1.0, shares.mean())), float(shares.var())
    effective = count if variance < 1e-12 else max(count, count * mean * (1 - mean) / variance)
    found = wilson(mean * effective, effective)
    return Interval(found.mean, found.low, found.high, count)


def share_of(values: Sequence[float | None] | np.ndarray) -> dict[str, Any] | None:
    """`share_interval` of the values that are there, as JSON values; None where none is."""
    found = [float(value) for value in values if value is not None]
    return asdict(share_interval(found)) if found else None


@dataclass(frozen=True)
class PairedTable:
    """Outcomes of two methods on the same units: how many both got right, one alone, neither.

    Numbers may be fractions: a unit that was tried several times counts once, shared out.
    each_counts: as how many independent trials a unit counts; see `of`.
    """

    both: float
    first: float
    second: float
    neither: float
    each_counts: float = 1.0

    @classmethod
    def of(cls, first: np.ndarray, second: np.ndarray, units: np.ndarray) -> PairedTable:
        """The table of outcomes [n], 0 to 1, of which those with equal `units` [n] are one unit.

        Mean differences of units vary less than those of single trials where a unit has several
        that are not all alike. It then counts as more than one trial, v / s²: v is the variance of
        a trial's difference, s² that of the units' (Dean and Pagano, as in `share_interval`).
        Where all units are equal, each counts as one.
        """
        weights = unit_weights(units)
        cells = [
            float((weights * one * two).sum())
            for one in (first, 1 - first)
            for two in (second, 1 - second)
        ]
        count = sum(cells)
        _, unit = np.unique(units, return_inverse=True)
        spread = float(np.bincount(unit, weights * (first - second)).var())
        trial = (cells[1] + cells[2]) / count - ((cells[1] - cells[2]) / count) ** 2
        each_counts = 1.0 if spread < 1e-12 else max(1.0, trial / spread)
        return cls(*cells, each_counts=each_counts)

    def difference(self) -> Interval:
        """Share of the first minus share of the second, with a 95 % interval valid at 0 and 1.

        Method 10 of R. G. Newcombe, "Improved confidence intervals for the difference between
        binomial proportions based on paired data", Statistics in Medicine 17 (1998) 2635: the
        Wilson intervals of the two shares, combined with their correlation φ, which is corrected
        for continuity. Raises ValueError for an empty table.
        """
        cells = (self.both, self.first, self.second, self.neither)
        a, b, c, d = (one * self.each_counts for one in cells)
        n = a + b + c + d
        one, two = wilson(a + b, n), wilson(a + c, n)
        product = (a + b) * (c + d) * (a + c) * (b + d)
        covariance = a * d - b * c
        if covariance > 0:
            covariance = max(0.0, covariance - n / 2)
        phi = covariance / math.sqrt(product) if product > 0 else 0.0
        down = _combined(one.mean - one.low, two.high - two.mean, phi)
        up = _combined(one.high - one.mean, two.mean - two.low, phi)
        mean = one.mean - two.mean
        units = round(n / self.each_counts)
        return Interval(mean, max(-1.0, mean - down), min(1.0, mean + up), units)


def share_difference(one: Interval, two: Interval) -> Interval:
    """Difference of two shares of groups that are not paired, from their Wilson intervals.

    Method 10 of R. G. Newcombe, "Interval estimation for the difference between independent
    proportions", Statistics in Medicine 17 (1998) 873. `n` is that of the smaller group.
    """
    down = _combined(one.mean - one.low, two.high - two.mean, 0.0)
    up = _combined(one.high - one.mean, two.mean - two.low, 0.0)
    mean = one.mean - two.mean
    return Interval(mean, mean - down, mean + up, min(one.n, two.n))


def _combined(one: float, two: float, phi: float) -> float:
    """Length of the difference of two errors with correlation `phi`."""
    return math.sqrt(max(0.0, one**2 - 2 * phi * one * two + two**2))


def unit_weights(units: np.ndarray) -> np.ndarray:
    """[n]: one over how many of the n have the same unit, so that every unit counts once."""
    _, inverse, counts = np.unique(units, return_inverse=True, return_counts=True)
    return 1.0 / counts[inverse]


def calibration_error(probabilities: np.ndarray, right: np.ndarray, bins: int = 10) -> float:
    """Expected calibration error: mean over labels of |predicted − right| of their bin.

    Bins have equal numbers of labels (`reliability`), so none is decided by a handful. Raises
    ValueError for no labels.
    """
    if not right.size:
        raise ValueError("a calibration error of no labels")
    found = reliability(probabilities, right, bins)
    gaps = [one["labels"] * abs(one["predicted"] - one["right"]) for one in found]
    return float(sum(gaps) / right.size)


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


def auroc(scores: np.ndarray, right: np.ndarray) -> float | None:
    """Area under the ROC curve: how often a right label scores higher than a wrong one, ties one
    half. scores, right: [n]; None where all are right or all wrong."""
    positive, negative = scores[right], np.sort(scores[~right])
    if not positive.size or not negative.size:
        return None
    below = np.searchsorted(negative, positive, "left").sum()
    equal = np.searchsorted(negative, positive, "right").sum() - below
    return float((below + equal / 2) / (positive.size * negative.size))


def quality(probabilities: np.ndarray, right: np.ndarray) -> dict[str, Any]:
    """How good probabilities of unseen labels are: AUROC (None with one class), Brier score, mean
    negative log-likelihood in nats, expected calibration error, reliability in ten bins; empty
    without labels."""
    if not right.size:
        return {}
    stated = np.clip(np.where(right, probabilities, 1 - probabilities), 1e-12, 1)
    return {
        "auroc": auroc(probabilities, right),
        "brier": float(((probabilities - right) ** 2).mean()),
        "nll": float(-np.log(stated).mean()),
        "ece": calibration_error(probabilities, right),
        "reliability": reliability(probabilities, right),
    }
