from __future__ import annotations

import numpy as np
import pytest

from letters import LettersEmbedder
from selfie_adapters.evaluation.retrieval.lookup import (
    Entry,
    Places,
    Query,
    Scored,
    TopicIndex,
)
from selfie_adapters.evaluation.retrieval.results import compare, compare_all

NOTHING = np.zeros((6, 1))


def scored(name, ranks, keys=None):
    keys = keys or [str(i) for i in range(len(ranks))]
    queries = [Query(key, 0, f"text {key}") for key in keys]
    rank = np.array(ranks)
    places = Places(rank, rank * 0, rank * 0.0, NOTHING, NOTHING, rank, rank)
    return Scored(name, "", queries, places)


def test_recall_and_reciprocal_rank_by_hand():
    found = scored("x", [1, 2, 5, 6, 100, 101]).summary(seed=0)
    recall = {k: found["recall_at"][k]["mean"] * 6 for k in found["recall_at"]}
    expected = {"1": 1, "5": 3, "10": 4, "20": 4, "50": 4, "100": 5}
    assert recall == pytest.approx(expected)
    by_hand = (1 + 1 / 2 + 1 / 5 + 1 / 6 + 1 / 100 + 1 / 101) / 6
    assert found["mean_reciprocal_rank"]["mean"] == pytest.approx(by_hand)
    assert found["median_rank"] == 5.5
    assert found["recall_at"]["1"]["low"] <= 1 / 6 <= found["recall_at"]["1"]["high"]


def test_differences_are_paired_by_key():
    first = scored("a", [1, 1, 3, 9], ["w", "x", "y", "z"])
    second = scored("b", [8, 1, 2, 1], ["z", "y", "x", "other"])
    found = compare(first, second, seed=0)
    # w has no partner; x 1 against 2, y 3 against 1, z 9 against 8
    assert found["queries"] == 3
    assert (found["first_ranks_higher"], found["second_ranks_higher"]) == (1, 2)
    assert found["difference"]["recall_at_1"]["mean"] == pytest.approx(0)
    by_hand = ((1 - 1 / 2) + (1 / 3 - 1) + (1 / 9 - 1 / 8)) / 3
    assert found["difference"]["mean_reciprocal_rank"]["mean"] == pytest.approx(by_hand)


def test_a_steady_difference_shows_although_topics_differ_widely():
    # half the topics are easy for both, so each recall alone is uncertain; the second misses
    # eight of the easy ones
    ranks = np.array([1, 50] * 50)
    worse = ranks.copy()
    worse[:80:10] = 2
    pair = compare(scored("a", ranks), scored("b", worse), seed=0)["difference"]["recall_at_1"]
    assert pair["mean"] == pytest.approx(0.08)
    assert pair["low"] > 0
    alone = [scored("x", r).summary(0)["recall_at"]["1"] for r in (ranks, worse)]
    assert alone[0]["low"] < alone[1]["high"]  # unpaired, the intervals overlap


def test_the_table_says_what_came_first():
    index = TopicIndex([Entry("owl"), Entry("tin"), Entry("beetle")], "title", LettersEmbedder())
    found = index.look_up("x", "", [Query("k", 1, "tins", 1.5), Query("l", 0, "beetles")])
    first, second = index.table(found)
    assert first["topic"] == "tin"
    assert first["topic_number"] == 1
    assert (first["key"], first["label"], first["scale"]) == ("k", "tins", 1.5)
    assert first["rank"] == 1
    assert first["nearest"][0] == {"topic": "tin", "similarity": first["similarity"]}
    assert second["nearest"][0]["topic"] == "beetle"
    assert second["rank"] > 1


def test_p_values_are_adjusted_over_all_pairs_and_decide_what_beats():
    better, worse = scored("a", [1] * 12), scored("b", [1] * 4 + [7] * 8)
    alone = compare_all([(better, worse)], seed=0)[0]
    assert alone["p"]["recall_at_1"] == pytest.approx(2 / 2**8)
    assert alone["p_holm"] == alone["p"]
    assert alone["first_beats_second"]["recall_at_1"]
    assert not alone["first_beats_second"]["recall_at_10"]  # both are right there
    many = compare_all([(better, worse)] * 7, seed=0)
    assert many[0]["p_holm"]["recall_at_1"] == pytest.approx(7 * 2 / 2**8)
    assert not many[0]["first_beats_second"]["recall_at_1"]
    assert compare_all([], seed=0) == []


def test_no_hit_of_six_does_not_prove_none():
    found = scored("x", [2, 3, 4, 5, 6, 7]).summary(0)["recall_at"]["1"]
    assert (found["mean"], found["low"]) == (0, 0)
    assert found["high"] == pytest.approx(1.96**2 / (6 + 1.96**2), abs=1e-3)  # Wilson at 0 of 6
