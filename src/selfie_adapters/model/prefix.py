"""The prompt before its first placeholder never changes: compute its keys and values once.

The cache object is changed by each forward pass, so every batch gets a copy of its own.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from transformers import Cache

from selfie_adapters.model.library import cache_of, forward
from selfie_adapters.model.loading import FrozenModel


class SharedPrefix:
    """Keys and values of the tokens that all rows of all batches begin with."""

    def __init__(self, model: FrozenModel, ids: tuple[int, ...]) -> None:
        """`ids` may be empty (the prompt begins with its placeholder): then nothing is shared."""
        self.length = len(ids)
        self._cache: Cache | None = None
        if ids:
            tokens = torch.tensor([ids], device=model.device)
            with torch.no_grad():
                # keep=1: the prefix's logits are of no use to anyone
                output = forward(model.network, input_ids=tokens, use_cache=True, keep=1)
            self._cache = cache_of(output)

    def for_batch(self, rows: int) -> Cache | None:
        """A fresh cache that holds the prefix `rows` times, ready to be extended; None if empty."""
        if self._cache is None:
            return None
        cache = copy.deepcopy(self._cache)
        cache.batch_repeat_interleave(rows)
        return cache


def common_length(rows: Sequence[list[int]] | Sequence[tuple[int, ...]], limit: int) -> int:
    """How many tokens all rows begin with, at most `limit`."""
    first, last = min(rows), max(rows)
    length = 0
    for a, b in zip(first, last, strict=False):
        if a != b or length == limit:
            break
        length += 1
    return length
