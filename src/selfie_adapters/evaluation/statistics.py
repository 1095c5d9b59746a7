"""95 % intervals by bootstrap, deterministic for a seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000


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
    data = np.asarray(values, dtype=np.float64)
    if data.size == 0:
        raise ValueError("a mean of no values")
    drawn = np.random.default_rng(seed).integers(data.size, size=(RESAMPLES, data.size))
    low, high = np.percentile(data[drawn].mean(axis=1), [2.5, 97.5])
    return Interval(float(data.mean()), float(low), float(high), int(data.size))
