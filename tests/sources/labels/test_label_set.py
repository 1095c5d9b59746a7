from __future__ import annotations

from selfie_adapters.sources import LabelSet


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
