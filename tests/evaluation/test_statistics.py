from __future__ import annotations

import math

import numpy as np
import pytest

from selfie_adapters.evaluation import Interval, bootstrap_mean


def test_the_interval_is_that_of_a_normal_mean_for_many_values():
    values = np.random.default_rng(1).normal(3.0, 2.0, size=2000)
    found = bootstrap_mean(values)
    half = 1.96 * values.std() / math.sqrt(2000)
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - half, abs=0.01)
    assert found.high == pytest.approx(values.mean() + half, abs=0.01)
    assert found.n == 2000


def test_equal_values_have_no_spread_and_the_same_seed_gives_the_same_interval():
    assert bootstrap_mean([2.0] * 9) == Interval(2.0, 2.0, 2.0, 9)
    assert bootstrap_mean([1, 2, 5], seed=4) == bootstrap_mean([1, 2, 5], seed=4)


def test_above_means_apart():
    low, high = Interval(1, 0.5, 1.5, 3), Interval(2, 1.6, 2.4, 3)
    touching = Interval(2, 1.4, 2.6, 3)
    assert high.above(low)
    assert not low.above(high)
    assert not touching.above(low)


def test_no_values_are_refused():
    with pytest.raises(ValueError, match="no values"):
        bootstrap_mean([])
