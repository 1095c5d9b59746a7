from __future__ import annotations

from array import array

import pytest

from selfie_adapters.sources import LabelSet
from selfie_adapters.sources.labels.label_set import NOBODY, LabelColumns, SplitTable

ANN, BEN = ("ann", "t"), ("ben", None)


def test_latents_out_of_range_are_left_out_and_counted():
    labels = LabelSet(
        {0: ["a", "b"], 3: ["c"], 4: ["d"], 9: ["e"]},
        splits={0: "train", 3: "val", 4: "train", 9: "val"},
        origin={"labels_from": "x"},
        report=["4 latents"],
        explainers={0: [("m", "t"), (None, None)], 4: [("m", "t")]},
    )
    inside = labels.restrict(4)
    assert inside.labels == {0: ["a", "b"], 3: ["c"]}
    assert inside.splits == {0: "train", 3: "val"}
    assert inside.explainers == {0: [("m", "t"), (None, None)]}
    assert inside.origin == {"labels_from": "x"}
    assert inside.report == [
        "4 latents",
        "2 latents out of range (the SAE has 4): 4, 9; dropped",
    ]
    assert (len(labels), len(inside)) == (5, 3)


def test_nothing_is_said_where_all_fit():
    labels = LabelSet({0: ["a"], 3: ["c"]}, report=["2 latents"])
    assert labels.restrict(4) == labels


def test_labels_by_latent_in_the_order_in_which_they_came():
    table = LabelColumns()
    for latent, text, who in [(9, "i", ANN), (2, "b", BEN), (9, "j", BEN), (0, "a", ANN)]:
        table.add(latent, text, who)
    assert table == {0: ["a"], 2: ["b"], 9: ["i", "j"]}
    assert [*table] == [0, 2, 9]
    assert (len(table), table.count) == (3, 4)
    assert [*table.repeats()] == [9]
    assert table.explainers == {0: [ANN], 2: [BEN], 9: [ANN, BEN]}
    assert [*table.rows()] == [(0, [("a", ANN)]), (2, [("b", BEN)]), (9, [("i", ANN), ("j", BEN)])]
    assert table.of([BEN]) == {2: ["b"], 9: ["j"]}
    assert table.of([ANN, BEN, NOBODY]) == table
    for absent in (1, 10, -1):
        assert absent not in table
    with pytest.raises(KeyError):
        table[1]


def test_labels_of_nobody_have_no_explainers():
    table = LabelColumns()
    assert table == {}
    assert [*table.rows()] == []
    table = LabelColumns()
    table.add(3, "a")
    table.add(4, "b")
    assert (table, table.explainers) == ({3: ["a"], 4: ["b"]}, {})


def test_splits_by_latent():
    splits = SplitTable(array("q", [5, 1, 3]), bytearray([2, 0, 1]))
    assert splits == {1: "train", 3: "val", 5: "test"}
    assert [*splits] == [1, 3, 5]
    assert [splits.get(latent) for latent in (0, 2, 6)] == [None] * 3
