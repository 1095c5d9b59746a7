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


_LONGEST_TRIED = 256  # tokens; longer windows hold any prompt with its label


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

    Or of as many more as a short attention window has: some caches forget what the model without
    one still sees. Raises ModelError for a model that cannot be run at all, is not deterministic,
    or looks at later tokens.
    """
    network = model.network
    start = _short_window(model)
    shared, one, other = start + 3, start + 6, start + 7
    # Two rows that differ from the token `shared` on; any ids do.
    ids = (torch.arange(2 * (start + 8)).view(2, -1) * 37 + 11) % min(model.vocab_size, 251)
    ids[1, :shared] = ids[0, :shared]
    pad = getattr(model.network.config.get_text_config(decoder=True), "pad_token_id", None)
    if isinstance(pad, int) and 0 <= pad < model.vocab_size:
        ids[:, 1] = pad  # a chat's end of turn, often; some models give it no position
    ids = ids.to(model.device)
    swapped = torch.tensor([1, 0], device=model.device)
    try:
        expected, again = (
            forward(network, input_ids=ids, use_cache=False).logits for _ in range(2)
        )
    except UNSUPPORTED as error:
        raise ModelError(
            f"{model.name} ({type(network).__name__}) cannot be run: {first_line(error)} "
            "Its code may need another version of transformers, or a package that is missing."
        ) from error
    limit = logit_tolerance(model, expected)
    if bool((again - expected).abs().max() > limit):
        raise ModelError(
            f"{model.name} ({type(network).__name__}) has other outputs for the same tokens each "
            "time, as Reformer has, which hashes at random. Use a deterministic model."
        )
    if bool((expected[0, :shared] - expected[1, :shared]).abs().max() > limit):
        raise ModelError(
            f"{model.name} ({type(network).__name__}) is no causal language model: its output at a "
            "token depends on later tokens, as in an encoder such as BERT. Use a decoder model."
        )

    def same(found: Tensor, rows: Tensor, first: int, last: int) -> bool:
        return bool((found - expected[rows, first:last]).abs().max() <= limit)

    def branches() -> bool:
        cache = cache_of(forward(network, input_ids=ids[:1, :shared], use_cache=True))
        cache.batch_repeat_interleave(2)
        out = forward(network, input_ids=ids[:, shared:one], cache=cache, use_cache=True)
        if not same(out.logits, torch.tensor([0, 1]), shared, one):
            return False
        cache = cache_of(out)
        cache.batch_select_indices(swapped)
        out = forward(network, input_ids=ids[swapped, one:other], cache=cache, use_cache=True)
        return same(out.logits, swapped, one, other)

    def steps() -> bool:
        cache = cache_of(forward(network, input_ids=ids[:, :one], use_cache=True))
        cache.reorder_cache(cast("torch.LongTensor", swapped))
        for at in (one, other):
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


def _short_window(model: FrozenModel) -> int:
    """The attention window, if a prompt and its label may reach beyond it; else 0."""
    window = getattr(model.network.config.get_text_config(decoder=True), "sliding_window", None)
    return window if isinstance(window, int) and 0 < window <= _LONGEST_TRIED else 0
