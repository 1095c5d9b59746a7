"""What a model's cache can be used for, tried once per model instead of looked up by name.

Attention layers keep keys and values, which can be repeated for many rows, selected and extended.
Recurrent and hybrid models (Mamba, LFM2, Qwen3-Next, RWKV, …) keep states instead: some caches
cannot be repeated, some are silently ignored when several tokens follow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from selfie_adapters.errors import ModelError, first_line
from selfie_adapters.model.library import cache_of, forward
from selfie_adapters.model.loading import FrozenModel, once_per_network

# What modeling code raises for a cache or a mask that it was not written for.
UNSUPPORTED = (
    AssertionError,
    AttributeError,
    IndexError,
    KeyError,
    ModelError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
)


def logit_tolerance(model: FrozenModel, logits: Tensor) -> float:
    """The largest difference from `logits` that counts as rounding in the model's dtype."""
    relative = 1e-3 if model.dtype in (torch.float32, torch.float64) else 0.1
    return relative * float(logits.abs().max())


@dataclass(frozen=True)
class CacheUse:
    """What a model's cache can be used for with the logits that a pass without it gives.

    branches: a prefix's cache can be repeated for many rows, extended by several tokens, and rows
    of it selected. steps: rows can be selected, and extended by one token at a time.
    """

    branches: bool
    steps: bool


@once_per_network
@torch.no_grad()
def cache_use(model: FrozenModel) -> CacheUse:
    """Tried once per loaded model, in a few passes of eight tokens.

    Raises ModelError for a model that cannot be run at all, or looks at later tokens.
    """
    network = model.network
    # Two rows that differ from the fourth token on; any ids do.
    ids = (torch.arange(16).view(2, 8) * 37 + 11) % min(model.vocab_size, 251)
    ids[1, :3] = ids[0, :3]
    ids = ids.to(model.device)
    swapped = torch.tensor([1, 0], device=model.device)
    try:
        expected = forward(network, input_ids=ids, use_cache=False).logits
    except UNSUPPORTED as error:
        raise ModelError(
            f"{model.name} ({type(network).__name__}) cannot be run: {first_line(error)} "
            "Its code may need another version of transformers, or a package that is missing."
        ) from error
    limit = logit_tolerance(model, expected)
    if bool((expected[0, :3] - expected[1, :3]).abs().max() > limit):
        raise ModelError(
            f"{model.name} ({type(network).__name__}) is no causal language model: its output at a "
            "token depends on later tokens, as in an encoder such as BERT. Use a decoder model."
        )

    def same(found: Tensor, rows: Tensor, first: int, last: int) -> bool:
        return bool((found - expected[rows, first:last]).abs().max() <= limit)

    def branches() -> bool:
        cache = cache_of(forward(network, input_ids=ids[:1, :3], use_cache=True))
        cache.batch_repeat_interleave(2)
        out = forward(network, input_ids=ids[:, 3:6], cache=cache, use_cache=True)
        if not same(out.logits, torch.tensor([0, 1]), 3, 6):
            return False
        cache = cache_of(out)
        cache.batch_select_indices(swapped)
        out = forward(network, input_ids=ids[swapped, 6:7], cache=cache, use_cache=True)
        return same(out.logits, swapped, 6, 7)

    def steps() -> bool:
        cache = cache_of(forward(network, input_ids=ids[:, :6], use_cache=True))
        cache.reorder_cache(cast("torch.LongTensor", swapped))
        for at in (6, 7):
            out = forward(network, input_ids=ids[swapped, at : at + 1], cache=cache, use_cache=True)
            if not same(out.logits, swapped, at, at + 1):
                return False
            cache = cache_of(out)
        return True

    def succeeds(trial: Callable[[], bool]) -> bool:
        try:
            return trial()
        except UNSUPPORTED:
            return False

    branching = succeeds(branches)
    # The first trial has a row selected and extended by one token, too.
    return CacheUse(branching, steps=branching or succeeds(steps))
