"""95 % intervals by bootstrap, deterministic for a seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000
_DRAWS_AT_ONCE = 4_000_000  # 64 MB, however many values there are


@dataclass(frozen=True)
class Interval:
    """A mean and its 95 % percentile-bootstrap interval; `n` values went in."""

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.2f} [{self.low:.2f}, {self.high:.2f}]"

    def above(self, other: Interval) -> bool:
        """Whether the intervals are apart, this one on the higher side."""
        return self.low > other.high


def bootstrap_mean(values: Sequence[float] | np.ndarray, seed: int = 0) -> Interval:
    """Mean of `values` with the 2.5 and 97.5 percentiles of means of resamples.

    The unit that is resampled is one value; give one value a concept (or latent), not a token.
    Raises ValueError for no values.
    """
    column = np.asarray(values, dtype=np.float64).reshape(-1, 1)
    return bootstrap_of_means(column, lambda means: means[..., 0], seed)


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
