"""The order behind the shuffled control: every vector gives its place to another."""

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
