"""Controls of evaluations: plain SelfIE (a unit vector times a scale), other topics, directions."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from selfie_adapters.adapters import Adapter, create_adapter
from selfie_adapters.errors import DataError


def untrained_adapter(dim: int, scale: float) -> Adapter:
    """f(x) = scale · x / ‖x‖: what an adapter is before training."""
    return create_adapter("scale_only", dim, init_scale=scale)


def other_topics(units: np.ndarray, seed: int) -> list[int]:
    """For each row, a row of another unit, drawn at random. Raises DataError for one unit."""
    generator = np.random.default_rng(seed)
    different = [np.flatnonzero(units != unit) for unit in units]
    if not len(units) or not all(len(rows) for rows in different):
        raise DataError(
            f"{len(set(units.tolist()))} topics cannot be shuffled; at least 2 are needed."
        )
    return [int(rows[generator.integers(len(rows))]) for rows in different]


def random_directions(count: int, width: int, seed: int) -> Tensor:
    """Gaussian unit vectors [count, width]; those of a smaller count are the first of a larger."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.stack([torch.randn(width, generator=generator) for _ in range(count)])
    return drawn / drawn.norm(dim=-1, keepdim=True)
