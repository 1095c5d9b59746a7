from __future__ import annotations

import pytest
import torch

from selfie_adapters.evaluation.controls import Condition, Untrained, best_scale
from selfie_adapters.evaluation.naming.retrieval import hits_at


def test_the_untrained_scale_counts_mean_embedding_norms(model):
    vectors = torch.zeros(1, model.d_model)
    vectors[0, :2] = torch.tensor([3.0, 4.0])
    norm = float(model.embedding(torch.arange(261).unsqueeze(0)).norm(dim=-1).mean())
    soft = Untrained(model).adapter(2.0).transform(vectors).detach()
    assert soft[0, :3].tolist() == pytest.approx([1.2 * norm, 1.6 * norm, 0], rel=1e-4)
    plain = Untrained(model, "absolute").adapter(10.0).transform(vectors).detach()
    torch.testing.assert_close(plain[0, :2], torch.tensor([6.0, 8.0]))


def test_the_best_scale_has_the_lowest_loss_and_a_single_one_is_not_measured():
    assert best_scale((1.0, 2.0, 3.0), {1.0: 0.5, 2.0: 0.25, 3.0: 0.25}.__getitem__) == (
        2.0,
        {1.0: 0.5, 2.0: 0.25, 3.0: 0.25},
    )
    assert best_scale((4.0,), {}.__getitem__) == (4.0, {})


def test_conditions_state_what_goes_in():
    given = torch.arange(12, dtype=torch.float32).reshape(4, 3) + 1
    assert Condition("a", "", reads="given").vectors(given, 0) is given
    assert not Condition("a", "", reads="zero").vectors(given, 0).any()
    moved = Condition("a", "", reads="shuffled").vectors(given, 0)
    assert sorted(moved.tolist()) == given.tolist()
    assert all((moved != given).any(dim=1))
    drawn = Condition("a", "", reads="random").vectors(given, 0)
    torch.testing.assert_close(drawn.norm(dim=1), given.norm(dim=1))
    assert ((drawn - given).abs() > 1e-3).any(dim=1).all()


def test_hits_count_strictly_better_others():
    scores = torch.tensor([[0.9, 0.1, 0.5], [0.8, 0.7, 0.1], [0.9, 0.8, 0.7]])
    # ranks of the diagonal: 1, 2, 3
    assert hits_at(scores, 1).tolist() == [1.0, 0.0, 0.0]
    assert hits_at(scores, 2).tolist() == [1.0, 1.0, 0.0]
    assert hits_at(scores, 3).tolist() == [1.0, 1.0, 1.0]


def test_a_score_that_knows_nothing_gets_chance_not_everything():
    assert hits_at(torch.zeros(4, 4), 1).tolist() == [0.25] * 4
    assert hits_at(torch.zeros(4, 4), 3).tolist() == [0.75] * 4
    two_tied = torch.tensor([[0.5, 0.5, 0.1], [0.0, 1.0, 0.0], [2.0, 1.0, 1.0]])
    # row 0 shares the first place with one other; row 2 shares places 2 and 3
    assert hits_at(two_tied, 1).tolist() == [0.5, 1.0, 0.0]
    assert hits_at(two_tied, 2).tolist() == [1.0, 1.0, 0.5]
