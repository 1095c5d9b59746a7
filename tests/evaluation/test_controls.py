from __future__ import annotations

import pytest
import torch

from selfie_adapters.errors import DataError
from selfie_adapters.evaluation.controls import random_vectors, shuffle_order, untrained_adapter
from selfie_adapters.evaluation.retrieval import hits_at


@pytest.mark.parametrize("count", [2, 3, 7, 60])
@pytest.mark.parametrize("seed", range(5))
def test_shuffling_moves_every_row_and_loses_none(count, seed):
    order = shuffle_order(count, seed)
    assert sorted(order.tolist()) == list(range(count))
    assert all(order[i] != i for i in range(count))


def test_one_row_cannot_be_shuffled():
    with pytest.raises(DataError, match="1 vectors cannot be shuffled"):
        shuffle_order(1)


def test_random_directions_keep_the_norms_and_nothing_else():
    vectors = torch.randn(200, 64) * torch.arange(1, 201).unsqueeze(1)
    drawn = random_vectors(vectors, seed=3)
    torch.testing.assert_close(drawn.norm(dim=1), vectors.norm(dim=1))
    cosine = torch.cosine_similarity(drawn, vectors)
    assert abs(float(cosine.mean())) < 0.03  # 64 dimensions, 200 rows: standard error 0.009


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
