from __future__ import annotations

import math

import numpy as np
import pytest

from selfie_adapters import statistics
from selfie_adapters.evaluation import Interval, bootstrap_mean
from selfie_adapters.evaluation.comparing import sign_flip_p
from selfie_adapters.statistics import (
    PairedTable,
    bootstrap_difference,
    bootstrap_of_means,
    calibration_error,
    share_difference,
    share_interval,
    share_of,
    unit_weights,
    wilson,
)


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


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [  # Newcombe, Statistics in Medicine 17 (1998) 857, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_intervals_are_the_published_ones(successes, n, low, high):
    found = wilson(successes, n)
    assert (found.mean, found.n) == (successes / n, n)
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)
    opposite = wilson(n - successes, n)
    assert (1 - opposite.high, 1 - opposite.low) == pytest.approx((found.low, found.high))


def test_wilson_bounds_at_the_ends_are_exact_and_impossible_counts_are_refused():
    for n in (1, 3, 7, 120, 10_000):
        assert wilson(0, n).low == 0.0 < wilson(0, n).high
        assert wilson(n, n).high == 1.0 > wilson(n, n).low
    for successes, n in ((0, 0), (5, 4), (-1, 4)):
        with pytest.raises(ValueError, match="of"):
            wilson(successes, n)


@pytest.mark.parametrize(
    ("table", "low", "high"),
    [
        ((1, 1, 7, 12), -0.507, -0.026),  # Fagerland et al., Stat. Med. 33 (2014) 2850
        ((14, 5, 0, 22), 0.011, 0.226),  # Altman et al., Statistics with Confidence (2000), 6.2
    ],
)
def test_paired_differences_are_the_published_ones(table, low, high):
    found = PairedTable(*table).difference()
    both, first, second, _ = table
    assert found.mean == pytest.approx((first - second) / sum(table))
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-4)
    assert found.n == sum(table)
    swapped = PairedTable(both, second, first, table[3]).difference()
    assert (swapped.low, swapped.high) == pytest.approx((-found.high, -found.low))
    assert found.above_zero == (low > 0)


def test_a_paired_difference_is_valid_where_all_or_none_are_right():
    for table in ((0, 0, 0, 20), (20, 0, 0, 0)):
        same = PairedTable(*table).difference()
        assert same.mean == 0
        assert -0.2 < same.low < 0 < same.high < 0.2
        assert not same.above_zero
    apart = PairedTable(0, 20, 0, 0).difference()  # one always right, the other never
    assert apart.mean == 1
    assert 0.7 < apart.low < apart.high == 1


def test_paired_intervals_hold_the_true_difference_in_95_of_100_samples():
    generator = np.random.default_rng(0)
    chances = np.array([0.05, 0.15, 0.03, 0.77])
    held = 0
    for counts in generator.multinomial(60, chances, size=2000):
        found = PairedTable(*map(float, counts)).difference()
        held += found.low <= 0.12 <= found.high
    assert 0.93 <= held / 2000 <= 0.99


def test_a_unit_that_is_tried_twice_counts_once():
    first = np.array([1.0, 1.0, 0.0, 1.0, 0.0])
    second = np.array([1.0, 0.0, 0.0, 0.0, 1.0])
    units = np.array(["a", "a", "b", "c", "d"])
    table = PairedTable.of(first, second, units)
    # differences: of the units 0.5, 0, 1 and -1, of a trial 1 with 3/8, -1 with 1/4
    counts = pytest.approx((5 / 8 - 1 / 64) / (9 / 16 - 1 / 64))
    assert table == PairedTable(both=0.5, first=1.5, second=1.0, neither=1.0, each_counts=counts)
    assert table.difference().n == 4
    assert unit_weights(units).tolist() == [0.5, 0.5, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("alike", [0.0, 0.3, 1.0])
def test_several_trials_of_a_unit_make_the_interval_as_narrow_as_they_are_independent(alike):
    """60 units, five trials of each; alike: the share of their variance that a unit's have in
    common. At 1 five trials say no more than one."""
    generator = np.random.default_rng(0)
    units = np.repeat(np.arange(60), 5)
    covered, widths, agreed = 0, [], 0
    for _ in range(400):
        common, own = generator.normal(size=(2, 60, 1)), generator.normal(size=(2, 60, 5))
        high = np.sqrt(alike) * common + np.sqrt(1 - alike) * own
        first, second = (high > -1.0).astype(float).reshape(2, -1)
        found = PairedTable.of(first, second, units).difference()
        covered += found.low <= 0 <= found.high
        widths.append(found.high - found.low)
        p = sign_flip_p((first - second).reshape(60, 5).mean(axis=1))
        agreed += (p < 0.05) == (not found.low <= 0 <= found.high)
    assert 0.92 <= covered / 400 <= 0.99
    assert agreed / 400 > 0.94
    # standard error of a difference: of 300 independent pairs, of 60, or between
    chance = 0.8413447
    independent, same = (2 * 1.96 * math.sqrt(2 * chance * (1 - chance) / n) for n in (300, 60))
    wide = np.mean(widths)
    if alike == 0.0:
        assert wide == pytest.approx(independent, rel=0.1)
    elif alike == 1.0:
        assert wide == pytest.approx(same, rel=0.1)
    else:
        assert independent < wide < same


def test_the_interval_covers_a_known_difference_of_unpaired_means():
    random = np.random.default_rng(0)
    covered = 0
    for _ in range(60):
        own, other = random.normal(1.0, 1.0, 16), random.normal(0.5, 1.0, 16)
        found = bootstrap_difference(own, other)
        covered += found.low <= 0.5 <= found.high
    assert 51 <= covered <= 60
    with pytest.raises(ValueError, match="no values"):
        bootstrap_difference([], [1.0])


def test_a_share_of_zeros_and_ones_has_wilsons_interval():
    found = share_interval([1, 0, 0, 1, 0, 0, 0, 0])
    assert (found.mean, found.low, found.high, found.n) == (
        0.25,
        pytest.approx(wilson(2, 8).low),
        pytest.approx(wilson(2, 8).high),
        8,
    )


def test_no_hit_at_all_is_no_proof_of_none():
    assert share_interval([0.0] * 20).high == pytest.approx(0.1611, abs=5e-5)
    assert share_interval([1.0] * 20).low == pytest.approx(1 - 0.1611, abs=5e-5)
    assert share_of([None, None]) is None
    assert share_of([0.0, None]) == {"mean": 0.0, "low": 0.0, "high": wilson(0, 1).high, "n": 1}


def test_one_conversation_of_many_counts_as_one_of_them():
    # 30 latents of 10 conversations, one of which hits: Wilson of about 1 of 300
    found = share_interval([0.1] + [0.0] * 29)
    exact = wilson(1, 300)
    assert (found.low, found.high) == (
        pytest.approx(exact.low, rel=0.1),
        pytest.approx(exact.high, rel=0.1),
    )


def test_intervals_of_shares_cover_the_truth():
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        latents = generator.beta(0.3, 5.7, size=100)  # mean 0.05
        found = share_interval(generator.binomial(6, latents) / 6)
        covered += found.low <= 0.05 <= found.high
    assert covered / 400 > 0.92


@pytest.mark.parametrize("values", [[], [0.5, 1.2], [-0.1]])
def test_what_is_no_share_is_refused(values):
    with pytest.raises(ValueError, match="shares from|no values"):
        share_interval(values)


def test_the_calibration_error_is_the_mean_gap_of_bins():
    probabilities = np.array([0.1] * 10 + [0.9] * 10)
    right = np.array([False] * 7 + [True] * 3 + [True] * 9 + [False])
    # each bin of 10: |0.1 − 0.3| and |0.9 − 0.9|
    assert calibration_error(probabilities, right, bins=2) == pytest.approx(0.1)
    assert statistics.quality(probabilities, right)["ece"] >= 0
    with pytest.raises(ValueError, match="no labels"):
        calibration_error(np.array([]), np.array([]))


def test_the_difference_of_unpaired_shares_is_newcombes():
    """The first examples of his Table II: 56/70 and 48/80; 9/10 and 3/10; 0/10 and 0/20."""
    for (a, m), (b, n), low, high in (
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((0, 10), (0, 20), -0.1611, 0.2775),
    ):
        found = share_difference(wilson(a, m), wilson(b, n))
        assert (found.low, found.high) == pytest.approx((low, high), abs=1e-4)
        assert found.n == min(m, n)
