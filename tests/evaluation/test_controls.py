from __future__ import annotations

import torch

from selfie_adapters.evaluation.controls import untrained_adapter
from selfie_adapters.evaluation.naming.recall import hits_at


def test_an_untrained_adapter_scales_the_unit_vector():
    vectors = torch.tensor([[3.0, 4.0]])
    soft = untrained_adapter(2, 10.0).transform(vectors).detach()
    torch.testing.assert_close(soft, torch.tensor([[6.0, 8.0]]))


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
