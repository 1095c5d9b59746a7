"""Shares, thresholds and comparisons of labels that are known."""

from __future__ import annotations

import pytest

from selfie_adapters.evaluation.sensitivity.following import (
    CONCEPT,
    RANDOM,
    Outcomes,
    comparisons,
    median,
    smallest,
    thresholds,
)
from selfie_adapters.sources.topics.topic import Topic

OWL, BEE = Topic(("owl",), name="owl"), Topic(("bee",), name="bee")


def outcomes(*labels, no_concept=None):
    return Outcomes.of(labels, [OWL] * len(labels), [BEE] * len(labels), no_concept)


def test_a_label_keeps_follows_states_nothing_or_none_of_them():
    found = outcomes("An owl", "bees", "Nothing", "tin", no_concept="nothing")
    assert found.kept == [True, False, False, False]
    assert found.followed == [False, True, False, False]
    assert found.nothing == [False, False, True, False]
    shares = found.shares()
    assert [shares[key]["mean"] for key in ("kept", "followed", "nothing")] == [0.25] * 3
    assert 0 < shares["kept"]["low"] < 0.25 < shares["kept"]["high"] < 1
    assert outcomes("Nothing").shares()["nothing"] is None


def test_the_smallest_strength_counts_though_a_larger_one_does_not_reach_it():
    reached = [[False, True, False], [True, False, False]]
    assert smallest([0.5, 1.0], reached) == [1.0, 0.5, None]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([1.0, 2.0, 4.0], 2.0),
        ([1.0, None, 4.0], 4.0),
        ([None, None, 4.0], None),
        ([4.0, None], 4.0),  # half of the pairs
        ([1.0, 2.0], 1.0),
        ([], None),
    ],
)
def test_the_median_is_where_half_of_the_pairs_are_reached(found, expected):
    assert median(found) == expected


def test_thresholds_are_of_the_pairs_that_count():
    its = {
        CONCEPT: [outcomes("owl", "owl", "tin"), outcomes("bee", "owl", "tin")],
        RANDOM: [outcomes("owl", "owl", "tin"), outcomes("owl", "nut", "tin")],
    }
    found = thresholds([0.5, 2.0], its, [True, True, False])
    follows, lost, by_noise = found
    assert (follows["outcome"], follows["by_pair"]) == ("follows", [2.0, None, None])
    assert (follows["reached"]["mean"], follows["reached"]["n"]) == (0.5, 2)
    assert follows["median"] == 2.0
    assert lost["by_pair"] == [2.0, None, 0.5]
    assert (by_noise["direction"], by_noise["by_pair"]) == (RANDOM, [None, 2.0, 0.5])
    nobody = thresholds([0.5, 2.0], its, [False] * 3)
    assert all(one["reached"] is None and one["median"] is None for one in nobody)


def test_random_directions_are_compared_pair_by_pair_and_adjusted_by_holm():
    its = {
        CONCEPT: [outcomes(*["owl"] * 8), outcomes(*["bee"] * 8)],
        RANDOM: [outcomes(*["owl"] * 8), outcomes(*["owl"] * 8)],
    }
    weak, strong = comparisons([0.5, 2.0], its)
    assert (weak["first"], weak["second"], weak["strength"]) == (RANDOM, CONCEPT, 0.5)
    assert (weak["difference"]["mean"], weak["p"], weak["p_holm"]) == (0, 1, 1)
    assert strong["difference"]["mean"] == 1
    # all eight pairs differ in one direction: 2 / 2^8, and the smaller of two p values is doubled
    assert strong["p"] == pytest.approx(2 / 256)
    assert strong["p_holm"] == pytest.approx(4 / 256)
    assert strong["first_beats_second"]
    assert not weak["first_beats_second"]
