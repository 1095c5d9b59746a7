"""What a score has to beat (invariant 8): the same measurement on inputs that know nothing.

zero        the adapter's bias alone: what it says about any vector
shuffled    every concept gets another concept's vector, through the trained adapter
untrained   the vector itself, unit norm, times the best of a few scales (plain SelfIE)
"""

from __future__ import annotations

import torch
from torch import Tensor

from selfie_adapters.adapters import Adapter, create_adapter
from selfie_adapters.dataset.shuffling import shuffle_order

__all__ = ["UNTRAINED_SCALES", "random_vectors", "shuffle_order", "untrained_adapter"]

UNTRAINED_SCALES = (1.0, 3.0, 6.0, 12.0)


def random_vectors(vectors: Tensor, seed: int = 0) -> Tensor:
    """Gaussian directions with the norms of the given rows."""
    drawn = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(seed))
    norms = vectors.norm(dim=-1, keepdim=True).float()
    return drawn / drawn.norm(dim=-1, keepdim=True) * norms


def untrained_adapter(dim: int, scale: float) -> Adapter:
    """f(x) = scale · x / ‖x‖: what an adapter is before training."""
    return create_adapter("scale_only", dim, init_scale=scale)
