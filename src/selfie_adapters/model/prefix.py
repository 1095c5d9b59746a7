"""The prompt before its first placeholder never changes: compute its keys and values once.

The cache object is changed by each forward pass, so every batch gets a copy of its own.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import Cache

from selfie_adapters.model.cache_use import cache_use
from selfie_adapters.model.kv_cache import Slots
from selfie_adapters.model.library import cache_of, forward
from selfie_adapters.model.loading import FrozenModel
from selfie_adapters.model.packing import KeysValues
from selfie_adapters.model.prompt import BoundPrompt


class SharedPrefix:
    """Keys and values of the tokens that all rows of all batches begin with.

    length: how many of the tokens given are shared: all of them, or none where the model's cache
    cannot be repeated (recurrent and hybrid models). Rows then begin with those tokens themselves.
    """

    def __init__(self, model: FrozenModel, ids: Sequence[int]) -> None:
        """`ids` may be empty (the prompt begins with its placeholder): then nothing is shared."""
        self.length = len(ids) if ids and cache_use(model).branches else 0
        self._cache: Cache | None = None
        self.slots: Slots | None = None  # of the last batch of rows, for the next
        if self.length:
            tokens = torch.tensor([list(ids)], device=model.device)
            with torch.no_grad():
                # keep=1: nobody uses the prefix's logits
                output = forward(model.network, input_ids=tokens, use_cache=True, keep=1)
            self._cache = cache_of(output)

    def keys_values(self) -> KeysValues | None:
        """What a packed pass comes after (`packing.Packing`); None if empty."""
        return None if self._cache is None else KeysValues.in_cache(self._cache)

    def for_batch(self, rows: int) -> Cache | None:
        """A fresh cache that holds the prefix `rows` times, ready to be extended; None if empty."""
        if self._cache is None:
            return None
        cache = copy.deepcopy(self._cache)
        cache.batch_repeat_interleave(rows)
        return cache


@dataclass(frozen=True)
class WholePrompt(BoundPrompt):
    """A prompt with nothing before it to share, for models that take no cache."""

    @property
    def prefix_ids(self) -> tuple[int, ...]:
        return ()

    @property
    def suffix_ids(self) -> tuple[int, ...]:
        return self.ids

    @classmethod
    def of(cls, prompt: BoundPrompt) -> WholePrompt:
        return cls(prompt.prompt, prompt.ids, prompt.sites, prompt.placeholder_id, prompt.end_id)


def shareable(model: FrozenModel, prompt: BoundPrompt) -> BoundPrompt:
    """`prompt`, or the same as a `WholePrompt` where the model's cache cannot be repeated."""
    return prompt if cache_use(model).branches else WholePrompt.of(prompt)


def common_length(rows: Sequence[list[int]] | Sequence[tuple[int, ...]], limit: int) -> int:
    """How many tokens all rows begin with, at most `limit`."""
    first, last = min(rows), max(rows)
    length = 0
    for a, b in zip(first, last, strict=False):
        if a != b or length == limit:
            break
        length += 1
    return length
