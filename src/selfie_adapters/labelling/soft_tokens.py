"""Soft tokens: what adapters make of vectors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from selfie_adapters.adapters import Adapter
from selfie_adapters.adapters.base import unit_norm

_LONGEST = 1e15


def soft_tokens(adapter: Adapter, vectors: Tensor, scales: Tensor | float = 1.0) -> Tensor:
    """Soft tokens of `vectors` ([n, d_model]) times `scales` (a number, or [n]): [n, d_model].

    The scale applies to the adapter's input: to the unit vector where the adapter normalizes,
    to the vector as it is where it does not.
    """
    values = vectors.float()
    if adapter.normalize_input:
        # A square past float32's range would turn a long vector into the zero vector.
        largest = values.abs().amax(dim=-1, keepdim=True)
        values = unit_norm(torch.where(largest > _LONGEST, values / largest, values))
    factor = torch.as_tensor(scales, dtype=torch.float32).reshape(-1, 1)
    with torch.no_grad():
        return adapter.transform(values * factor, normalize_input=False)


def soft_tokens_of_rows(adapters: Sequence[Adapter], vectors: Tensor, scales: Tensor) -> Tensor:
    """`soft_tokens` of each row by its own adapter. vectors: [rows, d_model]; scales: [rows]."""
    order: list[int] = []
    made: list[Tensor] = []
    for adapter in dict.fromkeys(adapters):
        rows = [row for row, one in enumerate(adapters) if one is adapter]
        made.append(soft_tokens(adapter, vectors[rows], scales[rows]))
        order += rows
    return torch.cat(made)[torch.tensor(order).argsort()]
