"""Paired comparisons: p values against counts by hand, Holm's published steps, seeds as a level."""

from __future__ import annotations

import itertools
from math import comb, erfc, sqrt

import numpy as np
import pytest

from selfie_adapters.evaluation import comparing
from selfie_adapters.evaluation.comparing import (
    adjusted,
    comparison,
    holm,
    over_seeds,
    p_text,
    paired,
    sign_flip_p,
)
from selfie_adapters.statistics import PairedTable, bootstrap_mean


def test_of_zeros_and_ones_the_p_value_is_mcnemars_and_the_interval_newcombes():
    first = np.array([1] * 9 + [0] * 2 + [1] * 5 + [0] * 4)
    second = np.array([0] * 9 + [1] * 2 + [1] * 5 + [0] * 4)
    found = paired(first, second)
    assert found.p == pytest.approx(2 * sum(comb(11, k) for k in range(3)) / 2**11)
    assert found.difference == PairedTable(5, 9, 2, 4).difference()


def test_no_difference_of_shares_still_has_an_interval():
    found = paired(np.zeros(30), np.zeros(30))
    assert found.p == 1
    assert found.difference.low < -0.1
    assert found.difference.high > 0.1


def test_other_numbers_are_bootstrapped_over_units():
    generator = np.random.default_rng(0)
    first, second = generator.normal(0.4, 1, 40), generator.normal(0, 1, 40)
    found = paired(first, second, seed=3)
    expected = bootstrap_mean(first - second, seed=3)
    assert vars(found.difference) == pytest.approx(vars(expected))


def test_rows_of_one_unit_count_together_or_one_by_one():
    first, second = np.array([1.5, 2.5, 9.0]), np.array([1.0, 1.0, 5.0])
    units = ["a", "a", "b"]
    assert paired(first, second, units).difference.mean == pytest.approx((1.0 + 4.0) / 2)
    by_row = paired(first, second, units, each="row")
    assert by_row.difference.mean == pytest.approx((0.5 + 1.5 + 4.0) / 3)
    # resamples hold unit a alone, b alone or both, never half of a
    assert (by_row.difference.low, by_row.difference.high) == (1.0, 4.0)


def test_repeating_every_row_of_a_unit_proves_nothing_more():
    first, second = np.array([1, 1, 1, 0, 1.0]), np.array([0, 0, 1, 0, 0.0])
    once = paired(first, second, [1, 2, 3, 4, 5])
    tenfold = paired(np.repeat(first, 10), np.repeat(second, 10), np.repeat([1, 2, 3, 4, 5], 10))
    assert tenfold.p == once.p == pytest.approx(0.25)  # three units, all in one direction
    assert tenfold.difference.low == pytest.approx(once.difference.low)


def test_few_units_are_flipped_exhaustively():
    values = np.array([0.3, -0.1, 0.7, 0.25, 0.9])
    sums = [abs(np.dot(s, values)) for s in itertools.product((1, -1), repeat=5)]
    expected = np.mean([one >= abs(values.sum()) - 1e-9 for one in sums])
    assert sign_flip_p(values) == pytest.approx(expected)


def test_many_units_are_flipped_at_random_and_agree_with_the_normal_limit(monkeypatch):
    values = np.random.default_rng(4).normal(0.12, 1, 300)
    z = abs(values.sum()) / sqrt((values**2).sum())
    expected = erfc(z / sqrt(2))
    assert sign_flip_p(values) == pytest.approx(expected, abs=0.02)
    monkeypatch.setattr(comparing, "_FLIPS_AT_ONCE", 1000)
    assert sign_flip_p(values) == pytest.approx(expected, abs=0.02)


def test_a_p_value_of_pure_noise_is_uniform():
    generator = np.random.default_rng(0)
    found = [sign_flip_p(generator.normal(size=12)) for _ in range(200)]
    assert np.mean(np.array(found) < 0.05) < 0.1
    assert np.mean(found) == pytest.approx(0.5, abs=0.07)


def test_holm_multiplies_step_by_step_and_never_falls():
    # Holm's rule by hand: 4 · 0.01, 3 · 0.02, max(2 · 0.025, 0.06), max(0.9, 0.06)
    assert holm([0.02, 0.9, 0.01, 0.025]) == pytest.approx([0.06, 0.9, 0.04, 0.06])
    assert holm([]) == []
    assert holm([0.6, 0.7]) == [1.0, 1.0]


def test_a_family_is_all_comparisons_of_one_measure():
    strong = paired(np.ones(8), np.zeros(8))  # p = 2 / 256
    rows = [comparison("a", f"c{i}", "recall", strong) for i in range(7)]
    rows.append(comparison("a", "c0", "rank", strong))
    found = adjusted(rows)
    assert found[0]["p_holm"] == pytest.approx(7 * 2 / 256)
    assert not found[0]["first_beats_second"]  # 0.055, though its own interval is above 0
    assert found[0]["difference"]["low"] > 0
    assert found[-1]["p_holm"] == pytest.approx(2 / 256)
    assert found[-1]["first_beats_second"]
    assert [p_text(one) for one in (found[0], found[-1], {})] == ["p 0.055", "p 0.008", ""]


def test_seeds_that_disagree_widen_the_interval():
    generator = np.random.default_rng(1)
    units = generator.normal(0, 1, 200)
    alike = np.stack([units, units, units])
    apart = alike + np.array([[-1.0], [0.0], [1.0]])
    one, two = over_seeds(alike), over_seeds(apart)
    assert one.difference.mean == two.difference.mean == pytest.approx(units.mean())
    width = bootstrap_mean(units)
    assert one.difference.high - one.difference.low == pytest.approx(
        width.high - width.low, rel=0.1
    )
    assert two.difference.low < -0.5
    assert two.difference.high > 0.5
    assert two.p > 0.5


def test_weighted_units_of_several_seeds_are_a_ratio_of_sums():
    sums, counts = np.array([[2.0, 6.0], [4.0, 12.0]]), np.array([1.0, 3.0])
    found = over_seeds(sums, counts)
    assert found.difference.mean == pytest.approx(3.0)
    assert (found.difference.low, found.difference.high) == (2.0, 4.0)
    assert found.p < 0.001


@pytest.mark.parametrize(("first", "second"), [([], []), ([1.0], [1.0, 0.0])])
def test_what_cannot_be_paired_is_refused(first, second):
    with pytest.raises(ValueError, match="cannot be paired"):
        paired(first, second)
