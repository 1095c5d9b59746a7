from __future__ import annotations

from selfie_adapters.labelling.choosing import rank_labels
from selfie_adapters.labelling.label import Label


def label(text: str, log_prob: float, zero: float, sample: int = 0) -> Label:
    return Label(text, text + '"', 1.0, sample, 7, log_prob, 2, True, zero)


def test_labels_are_ranked_by_their_likelihood_not_by_their_gain():
    rare = label("strigine", -12.0, -26.0)  # gain 7
    own = label("owl", -2.0, -8.0)  # gain 3
    middle = label("bird", -4.0, -5.0)  # gain 0.5
    ranked = rank_labels([middle, rare, own])
    assert [one.label.text for one in ranked] == ["owl", "bird", "strigine"]
    assert [one.rank for one in ranked] == [0, 1, 2]
    assert [one.margin for one in ranked] == [2.0, -2.0, -10.0]


def test_agreement_is_the_share_that_says_the_same_case_and_blanks_aside():
    labels = [label("An  Owl", -5, -2), label("an owl", -4, -3), label("crow", -1, -9)]
    ranked = rank_labels(labels)
    assert [one.label.text for one in ranked] == ["crow", "an owl", "An  Owl"]
    assert [round(one.agreement, 3) for one in ranked] == [0.333, 0.667, 0.667]
    # the margin is to the best that says something else
    assert [one.margin for one in ranked] == [3.0, -3.0, -4.0]


def test_a_blank_label_comes_last_and_one_label_has_no_margin():
    assert [one.label.text for one in rank_labels([label("", -1, -90), label("a", -1, -1)])] == [
        "a",
        "",
    ]
    (one,) = rank_labels([label("a", -1, -1)])
    assert (one.agreement, one.margin) == (1.0, None)
