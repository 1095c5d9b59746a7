from __future__ import annotations

import pytest
import torch

from selfie_adapters.dataset.controls import random_vectors, shuffle_order
from selfie_adapters.errors import DataError


@pytest.mark.parametrize("count", [2, 3, 7, 60])
@pytest.mark.parametrize("seed", range(5))
def test_shuffling_moves_every_row_and_loses_none(count, seed):
    order = shuffle_order(count, seed)
    assert sorted(order.tolist()) == list(range(count))
    assert all(order[i] != i for i in range(count))


def test_one_row_cannot_be_shuffled():
    with pytest.raises(DataError, match="1 vectors cannot be shuffled"):
        shuffle_order(1)


def test_random_directions_of_vectors_longer_than_float32_holds_are_finite():
    drawn = random_vectors(torch.full((2, 64), 1e38))  # length 8e38
    assert bool(torch.isfinite(drawn).all())
    assert bool((drawn.double().norm(dim=1) > 3e38).all())


def test_random_directions_keep_the_norms_and_nothing_else():
    vectors = torch.randn(200, 64) * torch.arange(1, 201).unsqueeze(1)
    drawn = random_vectors(vectors, seed=3)
    torch.testing.assert_close(drawn.norm(dim=1), vectors.norm(dim=1))
    cosine = torch.cosine_similarity(drawn, vectors)
    assert abs(float(cosine.mean())) < 0.03  # 64 dimensions, 200 rows: standard error 0.009
