"""Two latents, each the other one of the other, and negatives; activations by hand."""

from __future__ import annotations

import numpy as np
import pytest

from selfie_adapters.evaluation.scoring.results import auroc, compare_conditions, summarize

OTHERS = (1, 0)


def conversation(own, other, template=0.0):
    """MaximumActivations in the content; the template adds to the latent's own."""
    return {"text": "x", "content": [own, other], "anywhere": [max(own, template), other]}


def label(*conversations, text="label", scale=None):
    return {"text": text, "scale": scale, "conversations": list(conversations)}


WRONG = {"text": "", "error": "the writer wrote nothing"}


# Maxima at latents 5 and 8: latent 5 fires on 1 of 3, latent 8 on 2 of 3.
NEGATIVES = [
    {"text": "x", "content": [0.0, 1.0], "anywhere": [9.0, 9.0]},
    {"text": "x", "content": [3.0, 0.0], "anywhere": [9.0, 9.0]},
    WRONG,
    {"text": "x", "content": [0.0, 0.5], "anywhere": [9.0, 9.0]},
]


@pytest.fixture
def rows():
    c = conversation
    first = [
        label(c(1.0, 0.0), c(0.0, 0.0), c(3.0, 0.0), c(0.0, 2.0), scale=0.5),  # 2 of 4
        label(c(0.0, 0.0), WRONG, c(0.0, 0.0, template=9.0), WRONG, scale=2.0),  # 0 of 2
    ]
    second = [
        label(c(4.0, 1.0), c(4.0, 0.0), c(4.0, 1.0), c(4.0, 0.0), scale=0.5),  # 4 of 4
        label(text="", scale=2.0),
    ]
    return {
        "trained:5": {"latent": 5, "labels": first},
        "trained:8": {"latent": 8, "labels": second},
    }


def means(found):
    return {key: value["mean"] for key, value in found.items() if isinstance(value, dict)}


def test_scores_by_hand(rows):
    found = summarize(rows, ["trained"], [5, 8], OTHERS, NEGATIVES, [0.0, 2.0])
    trained = found["trained"]
    # the template's activation makes the second label 1 of 2 as published, no better than the first
    assert trained["published"]["best_of_n"]["mean"] == (1 / 2 + 1) / 2
    at_0, at_2 = trained["content"]["thresholds"]
    assert means(at_0) == pytest.approx(
        {
            "best_of_1": ((1 / 2 + 0) / 2 + (1 + 0) / 2) / 2,
            "best_of_n": (1 / 2 + 1) / 2,
            # latent 5: chosen on conversations 0, 2 (2 of 2), scored on 1, 3 (0 of 2), and back:
            # both labels have 0 there, the first is taken, 2 of 2
            "best_of_n_held_out": ((0 + 1) / 2 + 1) / 2,
            "false_positive_rate": (1 / 3 + 2 / 3) / 2,
            "balanced_accuracy": ((1 / 4 + 2 / 3) / 2 + (1 / 2 + 1 / 3) / 2) / 2,
            "balanced_accuracy_held_out": ((1 / 2 + 2 / 3) / 2 + (1 + 1 / 3) / 2) / 2,
        }
    )
    assert at_2["best_of_n"]["mean"] == (1 / 4 + 1) / 2
    assert at_2["false_positive_rate"]["mean"] == (1 / 3 + 0) / 2
    # latent 5: {1, 0, 3, 0, 0, 0} against {0, 3, 0}: 2 + 2½ + 4 · 1 of 18 pairs; latent 8: all
    assert trained["content"]["auroc"]["mean"] == pytest.approx((8.5 / 18 + 1) / 2)
    by_scale = {scale: of["mean"] for scale, of in trained["content"]["by_scale"].items()}
    assert by_scale == {"0.5": (1 / 2 + 1) / 2, "2": 0.0}
    assert trained["counts"] == {
        "latents": 2,
        "labels": 4,
        "empty_labels": 1,
        "conversations": 12,
        "conversations_with_error": 2,
    }


def test_shuffled_is_each_latent_on_the_other_ones_conversations(rows):
    found = summarize(rows, ["trained"], [5, 8], OTHERS, NEGATIVES, [0.0])
    (at_0,) = found["shuffled"]["content"]["thresholds"]
    # latent 5 on the conversations of 8: 2 of 4, and an empty label; latent 8 on those of 5:
    # 1 of 4 and 0 of 2
    assert at_0["best_of_1"]["mean"] == ((1 / 2 + 0) / 2 + (1 / 4 + 0) / 2) / 2
    assert at_0["best_of_n"]["mean"] == (1 / 2 + 1 / 4) / 2
    assert found["shuffled"]["published"]["best_of_n"]["mean"] == (1 / 2 + 1 / 4) / 2


def test_negatives_are_the_same_in_every_condition(rows):
    """Other labels change the hits and leave the false positives of each latent as they are."""
    silent = conversation(0.0, 7.0)
    rows |= {f"zero:{i}": {"latent": i, "labels": [label(silent)]} for i in (5, 8)}
    found = summarize(rows, ["trained", "zero"], [5, 8], OTHERS, NEGATIVES)
    rates = [of["content"]["thresholds"][0]["false_positive_rate"] for of in found.values()]
    assert list(found) == ["trained", "shuffled", "zero"]
    assert rates[0] == rates[1] == rates[2]
    balanced = found["zero"]["per_latent"]["balanced_accuracy"]
    assert balanced == pytest.approx([(0 + 2 / 3) / 2, (0 + 1 / 3) / 2])
    # latent 5: {0} against {0, 3, 0}: two ties; latent 8: {0} against {1, 0, ½}: one tie
    assert found["zero"]["per_latent"]["auroc"] == pytest.approx([1 / 3, 1 / 6])


def test_a_latent_that_fires_on_everything_does_not_win():
    c = conversation(5.0, 5.0)
    rows = {f"trained:{i}": {"latent": i, "labels": [label(c, c)]} for i in (0, 1)}
    negatives = [{"text": "x", "content": [5.0, 5.0], "anywhere": [5.0, 5.0]}]
    found = summarize(rows, ["trained"], [0, 1], OTHERS, negatives)["trained"]["content"]
    assert found["thresholds"][0]["best_of_n"]["mean"] == 1
    assert found["thresholds"][0]["balanced_accuracy"]["mean"] == 0.5
    assert found["auroc"]["mean"] == 0.5


def test_without_negatives_there_are_hits_alone():
    only = {"text": "x", "content": [1.0], "anywhere": [1.0]}
    rows = {"training:4": {"latent": 4, "labels": [label(only)]}}
    found = summarize(rows, ["training"], [4])
    assert list(found) == ["training"]
    (at_0,) = found["training"]["content"]["thresholds"]
    assert at_0["false_positive_rate"] is None
    assert at_0["balanced_accuracy"] is None
    assert found["training"]["content"]["auroc"] is None


def test_auroc_counts_ties_half():
    assert auroc(np.array([1.0, 2.0]), np.array([0.0, 1.0])) == (2 + 1.5) / 4
    assert auroc(np.array([0.0]), np.array([0.0, 0.0])) == 0.5


def test_conditions_are_compared_latent_by_latent():
    def condition(scores):
        return {
            "per_latent": {
                "best_of_1": scores,
                "balanced_accuracy": [(one + 1) / 2 for one in scores],
                "auroc": [None, *scores[1:]],
            }
        }

    pairs = compare_conditions(
        {"trained": condition([1.0, 0.5, 0.7]), "zero": condition([0.0, 0.5, 0.1])}
    )
    found = {pair["measure"]: pair for pair in pairs}
    assert found["best_of_1"]["difference"]["mean"] == pytest.approx(1.6 / 3)
    assert found["balanced_accuracy"]["difference"]["mean"] == pytest.approx(0.8 / 3)
    assert found["auroc"]["difference"]["n"] == 2  # latents that both conditions have a value of
    assert found["auroc"]["p"] == 1.0  # one unit differs: two signs, both as far
    assert [pair["second"] for pair in pairs] == ["zero"] * 3
    assert compare_conditions({}) == []


def test_a_latent_without_labels_is_no_part_of_a_conditions_scores(rows):
    alike = {"latent": 8, "labels": [label(conversation(1.0, 0.0), conversation(0.0, 0.0))]}
    both = {**rows, "same_start:5": {"latent": 5, "labels": []}, "same_start:8": alike}
    found = summarize(both, ["trained", "same_start"], [5, 8], OTHERS, NEGATIVES)
    same, trained = found["same_start"], found["trained"]
    assert same["counts"]["latents"] == 1
    assert same["per_latent"]["best_of_1"] == [None, 0.5]
    # Latent 8 fires on 2 of 3 negatives.
    assert same["per_latent"]["balanced_accuracy"] == [None, pytest.approx((0.5 + 1 / 3) / 2)]
    pairs = compare_conditions(found)
    (pair,) = (
        one for one in pairs if (one["second"], one["measure"]) == ("same_start", "best_of_1")
    )
    assert pair["difference"]["mean"] == pytest.approx(trained["per_latent"]["best_of_1"][1] - 0.5)
    assert pair["difference"]["n"] == 1
