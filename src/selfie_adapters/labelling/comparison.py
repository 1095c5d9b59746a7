"""Do a run's own vectors gain more than random directions? A difference with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000
FEWEST = 4
"""Vectors of either kind below which no interval is computed."""


@dataclass(frozen=True)
class GainComparison:
    """Mean gains, nats per token, of a run's vectors and of random directions with their norms.

    low, high: 95 % bootstrap interval of the difference.
    """

    own: float
    random: float
    low: float
    high: float

    @property
    def differs(self) -> bool:
        """Whether the run's own vectors gain more: the interval is above 0."""
        return self.low > 0


def compare_gains(own: Sequence[float], random: Sequence[float]) -> GainComparison | None:
    """The comparison; None where either has fewer than FEWEST values.

    Both kinds are resampled on their own: a random direction shares nothing but its norm with the
    vector that it was made from.
    """
    if min(len(own), len(random)) < FEWEST:
        return None
    generator = np.random.default_rng(0)
    means = []
    for gains in (np.asarray(own), np.asarray(random)):
        drawn = generator.integers(len(gains), size=(RESAMPLES, len(gains)))
        means.append(gains[drawn].mean(axis=1))
    low, high = np.percentile(means[0] - means[1], [2.5, 97.5])
    return GainComparison(float(np.mean(own)), float(np.mean(random)), float(low), float(high))
