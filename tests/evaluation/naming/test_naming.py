from __future__ import annotations

import numpy as np
import pytest
import torch

from selfie_adapters.adapters import create_adapter
from selfie_adapters.errors import DataError
from selfie_adapters.evaluation import Known, Named, controls, name_vectors
from selfie_adapters.evaluation.controls import other_topics, random_directions
from selfie_adapters.evaluation.naming.retrieval import sampled_groups
from selfie_adapters.evaluation.naming.verdicts import comparisons
from selfie_adapters.model import FrozenModel
from selfie_adapters.sources.topics.topic import Topic
from selfie_adapters.statistics import PairedTable, wilson
from tiny import golden_tokenizer, tiny_network

OWL = Topic(("owl", "owl, a bird of prey"), name="owl")
BEE = Topic(("bee",), name="bee")
SHIP = Topic(("ship",), name="ship")


def judged(labels, topics=(OWL, BEE, SHIP), condition="adapter"):
    return Named.judged(condition, "", labels, topics, "Nothing")


def test_labels_are_right_related_wrong_or_silent():
    named = judged(["The owls", "tin", " nothing "])
    assert named.verdicts == ["right", "wrong", "no concept"]
    assert named.exact == [False, False, False]
    assert judged(["OWL", "ship", "vessel"]).verdicts == ["right", "wrong", "related"]
    assert judged(["OWL", "ship", "vessel"]).exact == [True, False, False]


def test_shares_are_means_over_topics_and_have_wilson_intervals():
    topics = (OWL, OWL, BEE, SHIP)
    named = judged(["owl", "tin", "bee", "nothing"], topics)
    exact = named.share("exact")
    assert (exact.mean, exact.n) == (0.5, 3)  # 0.5 for owl, 1 for bee, 0 for ship
    assert (exact.low, exact.high) == (wilson(1.5, 3).low, wilson(1.5, 3).high)
    assert named.share("no concept").mean == pytest.approx(1 / 3)
    summary = named.summary()
    assert summary["vectors"] == 4
    assert summary["topics"] == 3
    shares = summary["share"]
    total = sum(shares[name]["mean"] for name in ("right", "related", "wrong", "no concept"))
    assert total == pytest.approx(1)
    # shown: owl half right, bee right
    assert shares["right or related, of the shown"]["mean"] == pytest.approx(0.75)
    assert shares["same first letter, of the wrong"]["mean"] == 0  # tin is not like owl


def test_wrong_labels_with_the_same_first_letter_are_counted_among_the_wrong_ones():
    named = judged(["oven", "tin", "ship"])
    found = named.summary()["share"]["same first letter, of the wrong"]
    assert (found["mean"], found["n"]) == (0.5, 2)
    silent = judged(["nothing", "nothing", "nothing"]).summary()["share"]
    assert silent["same first letter, of the wrong"] is None
    assert silent["right or related, of the shown"] is None
    assert silent["no concept"]["mean"] == 1


def test_conditions_are_compared_pair_by_pair():
    first = judged(["owl", "bee", "tin"])
    second = judged(["tin", "bee", "ship"], condition="logit lens")
    expected = PairedTable(both=1, first=1, second=1, neither=0).difference()
    found = comparisons(first, [second])
    assert found[0]["difference"] == vars(expected)
    assert [one["measure"] for one in found] == ["exact", "right", "right or related"]
    assert found[0]["difference"]["mean"] == 0
    assert not found[0]["first_beats_second"]
    topics = [Topic((f"thing {i}",), name=f"thing {i}") for i in range(20)]
    good = judged([topic.title for topic in topics], topics)
    bad = judged(["tin"] * 20, topics, "cosine")
    assert all(one["first_beats_second"] for one in comparisons(good, [bad]))
    assert not any(one["first_beats_second"] for one in comparisons(bad, [good]))


def test_pooled_sections_keep_every_vector():
    one, two = judged(["owl", "tin", "tin"]), judged(["owl", "bee", "nothing"])
    both = Named.pooled([one, two])
    assert len(both.labels) == 6
    assert both.share("exact").mean == pytest.approx((1 + 0.5 + 0) / 3)
    assert both.share("exact").n == 3


def test_shuffled_labels_come_from_other_topics_and_random_directions_can_be_extended():
    units = np.array(["a", "a", "b", "c", "c", "c"])
    order = other_topics(units, 0)
    assert all(units[row] != units[other] for row, other in enumerate(order))
    with pytest.raises(DataError, match="1 topics cannot be shuffled"):
        other_topics(np.array(["a", "a"]), 0)
    few, many = random_directions(3, 8, 1), random_directions(20, 8, 1)
    assert torch.equal(few, many[:3])
    assert torch.allclose(many.norm(dim=1), torch.ones(20))
    assert not torch.equal(few, random_directions(3, 8, 2))


def test_groups_have_different_names_and_are_whole(monkeypatch):
    monkeypatch.setattr("selfie_adapters.evaluation.naming.retrieval.CANDIDATES", 3)
    names = ["a", "a", "b", "c", "b", "d", "e", "f", "g"]
    groups = sampled_groups(names, 4, 0)
    assert [len(group) for group in groups] == [3, 3]
    chosen = [names[row] for group in groups for row in group]
    assert len(set(chosen)) == 6
    assert sampled_groups(names, 100, 0)[:2] == groups  # seven names: two groups at most
    assert sampled_groups(["a", "a", "b"], 3, 0) == []
    assert sampled_groups(names, 0, 0) == []


def test_vectors_are_named_by_a_library_call(monkeypatch):
    monkeypatch.setattr(controls, "MAX_NEW_TOKENS", 3)
    model = FrozenModel(tiny_network("llama"), golden_tokenizer(), "tiny")
    vectors = torch.randn(9, 32, generator=torch.Generator().manual_seed(1))
    training = Known(vectors[3:], ["tin", "lamp", "gate", "egg", "bell", "tie"])
    adapter = create_adapter("scalar_affine", 32, init_scale=4.0, normalize_input=False)
    found = name_vectors(model, adapter, None, vectors[:3], [OWL, BEE, SHIP], training)
    names = [one.condition for one in found]
    assert names[:5] == ["adapter", "zero vector", "shuffled", "random", "untrained"]
    assert names[5:] == ["logit lens", "cosine", "ridge probe"]
    assert all(len(one.labels) == 3 for one in found)
    odd = FrozenModel(tiny_network("gemma3n_text"), golden_tokenizer(), "odd")
    found = name_vectors(odd, adapter, None, vectors[:3], [OWL, BEE, SHIP], training)
    assert "logit lens" not in [one.condition for one in found]  # this model has none
