"""Adapters and recipes compared: resamples counted out one by one, families, constant shares."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from selfie_adapters.evaluation.comparing import adjusted, over_seeds, paired
from selfie_adapters.evaluation.outcomes import AdapterOutcomes, by_adapter, every_comparison
from selfie_adapters.evaluation.recipes import Subject
from selfie_adapters.statistics import Z95

SEEDS = Subject("a", ("a-0", "a-1"))
ALONE = Subject("b", ("b",))
OWN = {
    "a-0": np.array([1.0, 0.0, 1.0, 1.0]),
    "a-1": np.array([0.0, 0.0, 1.0, 1.0]),
    "b": np.array([0.0, 1.0, 0.0, 0.0]),
}
ZERO = {
    "a-0": np.array([0.0, 0.0, 1.0, 0.0]),
    "a-1": np.array([0.0, 1.0, 0.0, 0.0]),
    "b": np.array([0.0, 0.0, 0.0, 0.0]),
}


def outcomes(**changes):
    values = {
        name: {"own": {"hit": OWN[name]}, "zero": {"hit": ZERO[name]}}
        for name in ("a-0", "a-1", "b")
    }
    return AdapterOutcomes(**{"values": values, "own": "own", **changes})


def drawn(count):
    """Every way to draw `count` of as many, with repetition."""
    return itertools.product(range(count), repeat=count)


def ends(means):
    return np.percentile(np.array([*means]), [2.5, 97.5])


def found_of(pairs, first, second):
    (one,) = (pair for pair in pairs if (pair["first"], pair["second"]) == (first, second))
    return one["difference"]


def test_the_mean_of_a_recipe_is_resampled_over_seeds_and_units():
    table = np.random.default_rng(5).uniform(size=(2, 4))
    values = {name: {"own": {"hit": one}} for name, one in zip(SEEDS.adapters, table, strict=True)}
    low, high = ends(
        table[list(seeds)][:, list(units)].mean() for seeds in drawn(2) for units in drawn(4)
    )
    recipe = AdapterOutcomes(values, "own").recipe(SEEDS)
    found = recipe["mean"]["hit"]
    assert found["mean"] == pytest.approx(table.sum() / 8)
    assert found["n"] == 4
    assert found["low"] == pytest.approx(low, abs=0.01)
    assert found["high"] == pytest.approx(high, abs=0.01)
    assert recipe["by_seed"]["hit"] == pytest.approx([sum(one) / 4 for one in table])


def test_a_control_is_that_of_the_same_seed():
    differences = np.stack([OWN[name] - ZERO[name] for name in SEEDS.adapters])
    low, high = ends(
        np.mean([differences[s, u] for s in seeds for u in units])
        for seeds in drawn(2)
        for units in drawn(4)
    )
    found = found_of(outcomes().comparisons([SEEDS]), "a", "zero")
    assert found["mean"] == pytest.approx((2 + 1) / 8)
    assert (found["low"], found["high"]) == (low, high)


def test_seeds_of_two_recipes_are_resampled_each_on_their_own():
    generator = np.random.default_rng(2)
    one, two = generator.normal(1, 1, (2, 3)), generator.normal(0, 1, (3, 3))
    means = [
        one[list(some)][:, list(units)].mean() - two[list(others)][:, list(units)].mean()
        for some in drawn(2)
        for others in drawn(3)
        for units in drawn(3)
    ]
    found = over_seeds(one, minus=two)
    assert found.difference.mean == pytest.approx(one.mean() - two.mean())
    low, high = ends(means)
    assert found.difference.low == pytest.approx(low, abs=0.08)
    assert found.difference.high == pytest.approx(high, abs=0.08)
    below = np.mean(np.array(means) <= 0)
    assert found.p == pytest.approx(2 * min(below, 1 - below), abs=0.03)


def test_two_adapters_without_a_recipe_are_compared_as_any_two_conditions():
    other = Subject("a-0", ("a-0",))
    found = found_of(outcomes().comparisons([ALONE, other]), "b", "a-0")
    assert found == vars(paired(OWN["b"], OWN["a-0"]).difference)


def test_less_is_better_turns_the_difference_around():
    pairs = [*outcomes(lower_is_better=True).comparisons([SEEDS, ALONE])]
    assert found_of(pairs, "a", "zero")["mean"] == pytest.approx(-3 / 8)
    assert found_of(pairs, "a", "b")["mean"] == pytest.approx(0.25 - 0.625)


def test_rows_of_one_unit_count_once_or_by_number():
    values = {"a-0": {"own": {"x": np.array([1.0, 3.0, 8.0])}}}
    values["a-1"] = {"own": {"x": np.array([3.0, 5.0, 2.0])}}
    by_unit = AdapterOutcomes(values, "own", ["s", "s", "t"]).recipe(SEEDS)
    assert by_unit["mean"]["x"]["mean"] == pytest.approx(np.mean([(2 + 8) / 2, (4 + 2) / 2]))
    by_row = AdapterOutcomes(values, "own", ["s", "s", "t"], each="row").recipe(SEEDS)
    assert by_row["mean"]["x"]["mean"] == pytest.approx(np.mean([12 / 3, 10 / 3]))
    assert by_row["by_seed"]["x"] == pytest.approx([4.0, 10 / 3])


def test_shares_that_do_not_vary_have_the_interval_of_their_units():
    same = {name: {"own": {"hit": np.zeros(6)}, "zero": {"hit": np.zeros(6)}} for name in OWN}
    found = AdapterOutcomes(same, "own").by_subject([SEEDS, ALONE])
    (recipe,) = found["recipes"]
    wilson = Z95**2 / (6 + Z95**2)  # the upper end at 0 of 6
    assert recipe["mean"]["hit"]["high"] == pytest.approx(wilson)
    for pair in every_comparison(found):
        assert pair["difference"]["high"] == pytest.approx(wilson)
        assert pair["p"] == 1
    ones = {**same, **{n: {**same[n], "own": {"hit": np.ones(6)}} for n in SEEDS.adapters}}
    against_zero, against_b = AdapterOutcomes(ones, "own").comparisons([SEEDS, ALONE]), None
    pairs = [one for one in against_zero if one["first"] == "a"]
    against_b = found_of(pairs, "a", "b")
    assert against_b["mean"] == 1
    assert against_b["low"] < 0.7  # six topics do not prove more
    assert pairs[0]["p"] == pytest.approx(2 / 2**6)


def test_seeds_of_a_recipe_are_no_comparison_and_the_rest_is_one_family():
    found = outcomes().by_subject([SEEDS, ALONE])
    pairs = [*every_comparison(found)]
    assert [(one["first"], one["second"]) for one in pairs] == [
        ("b", "zero"),
        ("a", "zero"),
        ("a", "b"),
    ]
    adjusted(pairs)
    order = sorted(pairs, key=lambda one: one["p"])
    expected = 0.0
    for rank, one in enumerate(order):
        expected = max(expected, min(1.0, (3 - rank) * one["p"]))
        assert one["p_holm"] == pytest.approx(expected)


def test_a_control_is_its_adapters_or_everybodys():
    values = {"hit": np.zeros(1)}
    names = ["a", "a: zero", "ab", "ab: zero", "lens"]
    found = by_adapter([(name, values) for name in names], ["a", "ab"], "own")
    assert {name: [*of] for name, of in found.items()} == {
        "a": ["own", "zero", "lens"],
        "ab": ["own", "zero", "lens"],
    }
