from __future__ import annotations

import json

import pytest
import torch

from selfie_adapters.dataset import Item, VectorLabelDataset
from selfie_adapters.dataset.load import Section
from selfie_adapters.errors import DataError
from selfie_adapters.evaluation.retrieval.lookup import Entry
from selfie_adapters.evaluation.retrieval.targets import (
    entries_of_vectors,
    given_labels,
    sample,
    targets_of_topics,
    targets_of_vectors,
)

ENTRIES = [Entry("owl", ("owl", "hooter")), Entry("tin", ("tin", "metal")), Entry("tin", ("can",))]


def dataset(*labels, name="d"):
    items = [Item(i, list(texts), "val") for i, texts in enumerate(labels)]
    return VectorLabelDataset(
        [Section({"dataset_name": name, "layer": 3}, torch.ones(9, 4), items)]
    )


def targets(*labels):
    data = dataset(*labels)
    return targets_of_vectors(data, data.labelled(), ENTRIES, "things")


def test_a_vector_belongs_to_the_topic_with_its_labels():
    found = targets(("can",), ("owl", "hooter"), ("tin", "metal"))
    assert [(t.key, t.topic) for t in found] == [("d@l3/0", 2), ("d@l3/1", 0), ("d@l3/2", 1)]
    assert found[1].labels == ("owl", "hooter")


def test_or_to_the_only_one_with_its_first_label_as_title():
    found = targets(("owl", "tin", "can"), ("owl", "metal"))  # not that of its row, nor of "tin"
    assert [t.topic for t in found] == [0, 0]


def test_or_to_the_one_at_its_row_that_shares_a_label():
    assert [t.topic for t in targets(("hooter",), ("tin",), ("tin", "can"))] == [0, 1, 2]


def test_a_vector_without_a_topic_is_named():
    with pytest.raises(DataError, match=r"d@l3/1, labels \['gnu'\]: no topics of things"):
        targets(("owl", "hooter"), ("gnu",))
    with pytest.raises(DataError, match=r"d@l3/0, labels \['tin'\]: 2 topics"):
        targets(("tin",))


def test_vectors_with_the_same_labels_are_one_entry():
    data = dataset(("owl", "hooter"), ("tin",), ("owl", "hooter"), ("owl",))
    entries = entries_of_vectors(data)
    assert entries == [
        Entry("owl", ("owl", "hooter")),
        Entry("tin", ("tin",)),
        Entry("owl", ("owl",)),
    ]
    found = targets_of_vectors(data, data.labelled(), entries, "d")
    assert [t.topic for t in found] == [0, 1, 0, 2]


def write(tmp_path, *rows):
    path = tmp_path / "said.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_labels_are_found_by_key_by_row_or_by_topic(tmp_path):
    wanted = targets(("owl", "hooter"), ("tin", "metal"))
    by_key = write(
        tmp_path,
        {"dataset": "d@l3", "index": 1, "label": "b"},
        {"dataset": "d@l3", "index": 0, "label": "a"},
    )
    assert given_labels(by_key, wanted, ENTRIES) == ["a", "b"]
    by_row = write(tmp_path, {"index": 0, "label": "a"}, {"index": "1", "label": "b"})
    assert given_labels(by_row, wanted, ENTRIES) == ["a", "b"]
    by_topic = write(tmp_path, {"topic": "tin", "label": "b"}, {"topic": "owl", "label": ""})
    assert given_labels(by_topic, wanted, ENTRIES) == ["", "b"]
    bare = targets_of_topics(ENTRIES, [2, 0])
    numbered = write(tmp_path, {"index": 0, "label": "a"}, {"index": 2, "label": "c"})
    assert given_labels(numbered, bare, ENTRIES) == ["c", "a"]


def test_of_several_labels_the_best_ranked_counts_or_the_first(tmp_path):
    wanted = targets(("owl", "hooter"))
    ranked = write(
        tmp_path,
        {"index": 0, "label": "second", "rank": 1},
        {"index": 0, "label": "best", "rank": 0},
    )
    assert given_labels(ranked, wanted, ENTRIES) == ["best"]
    plain = write(tmp_path, {"index": 0, "label": "first"}, {"index": 0, "label": "later"})
    assert given_labels(plain, wanted, ENTRIES) == ["first"]
    failed = write(tmp_path, {"index": 0, "error": "NaN"})
    assert given_labels(failed, wanted, ENTRIES) == [""]


def test_a_missing_label_and_bad_rows_are_named(tmp_path):
    wanted = targets(("owl", "hooter"), ("tin", "metal"))
    some = write(tmp_path, {"index": 0, "label": "a"})
    with pytest.raises(DataError, match=r'no label for d@l3/1 \(topic "tin"\); it has 1 labels'):
        given_labels(some, wanted, ENTRIES)
    for row, found in (
        ({"index": 0}, "found 'index'"),
        ({"label": "a"}, "found 'label'"),
        ({"label": "a", "index": 0, "rank": "x"}, "rank"),
    ):
        with pytest.raises(DataError, match=f"line 1: label and topic.*{found}"):
            given_labels(write(tmp_path, row), wanted, ENTRIES)


def test_a_sample_is_drawn_anywhere_and_stays_in_order():
    items = list(range(1000))
    drawn = sample(items, 50, seed=1)
    assert drawn == sorted(set(drawn))
    assert len(drawn) == 50
    assert 350 < sum(drawn) / 50 < 650  # not the first fifty
    assert sample(items, 50, seed=1) == drawn != sample(items, 50, seed=2)
    assert sample(items, None, 0) == sample(items, 5000, 0) == items
