"""What is read of a vector after its first label, with a labeller and spans that are known."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from selfie_adapters.config.shared import Sampling
from selfie_adapters.labelling.choosing import BELOW_THRESHOLD, NO_CONCEPT, Judgement
from selfie_adapters.labelling.decomposition.concepts import SAMPLES, Decomposer
from selfie_adapters.labelling.label import Label

WORDS = ["owl", "bee", "tin"]


class Axes:
    """Each word is one axis; its label is that of the largest coordinate."""

    adapter = SimpleNamespace(binding=SimpleNamespace(no_concept="nothing"))

    def label(self, vectors, scales, samples, sampling, *, names, **_):
        self.names = names
        return [
            [_label(self.word(vector, sampling), i) for i in range(samples)] for vector in vectors
        ]

    def word(self, vector, sampling):
        if float(vector.norm()) < 1e-4:
            return "nothing"
        # A greedy label that is wrong where a sampled one is right.
        if sampling.temperature == 0 and vector[3] > 0:
            return "tin"
        return WORDS[int(vector[:3].argmax())]

    def spans(self, labels, place):
        assert place == (1, "name")
        return [torch.eye(4)[WORDS.index(one)][None] for one in labels if one in WORDS] + [
            torch.empty(0, 4) for one in labels if one not in WORDS
        ]


def _label(text, sample=0):
    return Label(text, text, 1.0, sample, 0, -1.0, 1, True, -2.0)


def read(vector, count=3, judged=lambda *_: Judgement(0.9, None)):
    axes: Any = Axes()
    decomposer = Decomposer(axes, axes, count, Sampling())
    return decomposer.concepts(torch.tensor([vector]), judged, [(0,)], [(1, "name")])[0]


def test_concepts_come_loudest_first_and_their_shares_add_up():
    found = read([0.75, 0.25, 0.0, 0.0])
    assert [one.label.text for one in found] == ["owl", "bee", "nothing"]
    whole = 0.75**2 + 0.25**2
    assert found[0].explained == pytest.approx(0.75**2 / whole)
    assert found[1].explained == pytest.approx(0.25**2 / whole)
    assert found[1].of_rest == pytest.approx(1)
    assert sum(one.explained for one in found) == pytest.approx(1)


def test_a_label_that_explains_too_little_of_a_rest_is_withheld_and_ends_the_vector():
    found = read([0.9, 0.1, 0.0, -0.5])
    assert [one.verdict.withheld for one in found] == [None, BELOW_THRESHOLD]


def test_without_a_confidence_a_first_label_that_explains_too_little_is_withheld():
    def unknown(*_):
        return Judgement(None, None)

    assert read([0.9, 0.1, 0.0, -0.3], 1, unknown)[0].verdict.withheld is None
    assert read([0.3, 0.1, 0.0, -0.9], 1, unknown)[0].verdict.withheld == BELOW_THRESHOLD


def test_no_more_than_asked_for():
    assert len(read([0.5, 0.5, 0.5, 0.0], count=2)) == 2


def test_of_the_candidates_that_explains_most_is_taken():
    found = read([0.9, 0.0, 0.1, 0.2], count=1)
    assert found[0].label.text == "owl"
    assert 0 <= found[0].label.sample < SAMPLES


def test_no_concept_is_followed_by_none():
    def judged(_, label):
        return Judgement(None, NO_CONCEPT if label.text == "nothing" else None)

    found = read([0.0, 0.0, 0.0, 0.0], judged=judged)
    assert [one.verdict.withheld for one in found] == [NO_CONCEPT]
    assert found[0].explained == 0


def test_a_doubted_first_label_is_followed_only_if_it_explains_its_vector():
    def doubted(*_):
        return Judgement(0.1, BELOW_THRESHOLD)

    assert [one.label.text for one in read([0.8, 0.3, 0.0, 0.0], 2, doubted)] == ["owl", "bee"]
    assert len(read([0.3, 0.0, 0.1, -0.9], 2, doubted)) == 1
