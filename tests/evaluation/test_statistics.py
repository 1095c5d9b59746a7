from __future__ import annotations

import math

import numpy as np
import pytest

from selfie_adapters.evaluation import Interval, bootstrap_mean, statistics
from selfie_adapters.evaluation.statistics import bootstrap_of_means


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


def test_a_ratio_of_means_is_resampled_row_by_row():
    # every row has the same ratio, so no resample can have another one
    rows = np.array([[2.0, 1.0], [6.0, 3.0], [20.0, 10.0]])
    found = bootstrap_of_means(rows, lambda means: means[..., 0] / means[..., 1])
    assert (found.mean, found.low, found.high, found.n) == (2.0, 2.0, 2.0, 3)
    uneven = np.array([[1.0, 1.0], [6.0, 3.0]])  # 7 / 4 of both; 1 and 2 of one drawn twice
    found = bootstrap_of_means(uneven, lambda means: means[..., 0] / means[..., 1])
    assert found.mean == pytest.approx(7 / 4)
    assert (found.low, found.high) == (1.0, 2.0)


@pytest.mark.parametrize("draws", [1, 999, 10**9])
def test_resamples_do_not_depend_on_how_many_are_drawn_at_once(monkeypatch, draws):
    values = np.random.default_rng(2).normal(size=7)
    expected = bootstrap_mean(values, seed=5)
    monkeypatch.setattr(statistics, "_DRAWS_AT_ONCE", draws)
    assert bootstrap_mean(values, seed=5) == expected
