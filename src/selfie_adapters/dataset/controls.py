"""Vectors that mean nothing, made from vectors that do: what scores have to beat."""

from __future__ import annotations

import torch
from torch import Tensor

from selfie_adapters.errors import DataError


def shuffle_order(count: int, seed: int = 0) -> Tensor:
    """A random order of `count` rows in which no row keeps its place: [count].

    Raises DataError for fewer than two rows.
    """
    if count < 2:
        raise DataError(f"{count} vectors cannot be shuffled; at least 2 are needed.")
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    moved = torch.empty_like(order)
    moved[order] = order.roll(1)  # one cycle through all rows: no row stays
    return moved


def random_vectors(vectors: Tensor, seed: int = 0) -> Tensor:
    """Gaussian directions with the norms of the given rows, clamped to the largest float32."""
    drawn = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(seed))
    norms = vectors.double().norm(dim=-1, keepdim=True)  # squares may leave float32
    norms = norms.clamp(max=torch.finfo(torch.float32).max).float()
    return drawn / drawn.norm(dim=-1, keepdim=True) * norms
