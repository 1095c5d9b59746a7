"""Rows that a model has read and reads on, with its cache where the cache can be trusted.

Attention layers keep keys and values, which can be repeated for many rows, selected and extended.
Recurrent and hybrid models (Mamba, LFM2, Qwen3-Next, RWKV, …) keep states instead: some caches
cannot be repeated, some are silently ignored when several tokens follow. What a model's cache is
good for is tried once, not looked up by name; where it is good for nothing, rows are read again.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor, nn
from transformers import Cache

from selfie_adapters.errors import ModelError, first_line
from selfie_adapters.model.growing_cache import give_room
from selfie_adapters.model.injection import injected
from selfie_adapters.model.library import cache_of, forward, kept_rows
from selfie_adapters.model.loading import FrozenModel

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


_known: weakref.WeakKeyDictionary[nn.Module, CacheUse] = weakref.WeakKeyDictionary()


def cache_use(model: FrozenModel) -> CacheUse:
    """Tried once per loaded model, in a few passes of eight tokens.

    Raises ModelError for a model that cannot be run at all, or looks at later tokens.
    """
    if model.network not in _known:
        _known[model.network] = _tried(model)
    return _known[model.network]


@torch.no_grad()
def _tried(model: FrozenModel) -> CacheUse:
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

    return CacheUse(branches=succeeds(branches), steps=succeeds(steps))


@dataclass(frozen=True)
class SoftRows:
    """tokens: [rows, d_model], one soft token per row, for the `sites` placeholders in it."""

    tokens: Tensor
    placeholder_id: int
    sites: int


class Continuation:
    """Rows that the model has read; they can be selected, copied and read on.

    `logits` [rows, vocabulary] are those after the last token, in the model's dtype.
    """

    def __init__(
        self,
        model: FrozenModel,
        ids: Tensor,
        cache: Cache | None = None,
        soft: SoftRows | None = None,
        mask: Tensor | None = None,
    ) -> None:
        """Read `ids` [rows, tokens] after the tokens that `cache` holds.

        mask: [rows, tokens of the cache and of `ids`], 0 where a row is padded on its left. A
        cache or a padded row may only be given where the model's cache branches (`cache_use`).
        """
        self._model = model
        self._use = cache_use(model)
        self._ids = ids.to(model.device)
        self._soft = soft
        self._soft_length = ids.shape[1]
        self._mask = None if mask is None else mask.to(model.device)
        self._cache = cache
        keeps_cache = self._use.branches or self._use.steps
        with self._injected():
            self.logits = self._last_logits(self._ids, keeps_cache)

    def select(self, rows: Tensor) -> None:
        """Keep `rows` ([n] row numbers, repeats allowed), in that order."""
        rows = rows.to(self._model.device)
        self._ids, self.logits = self._ids[rows], self.logits[rows.to(self.logits.device)]
        if self._mask is not None:
            self._mask = self._mask[rows]
        if self._soft is not None:
            self._soft = replace(self._soft, tokens=self._soft.tokens[rows])
        if self._cache is not None and self._use.branches:
            self._cache.batch_select_indices(rows)
        elif self._cache is not None:
            self._cache.reorder_cache(cast("torch.LongTensor", rows))

    def branch(self, rows: Tensor) -> Continuation:
        """A copy of `rows`, to be read on by `read_all`; this one stays as it is."""
        other = copy.copy(self)
        other._cache = copy.deepcopy(self._cache) if self._use.branches else None
        other.select(rows)
        return other

    def make_room(self) -> None:
        """Let the cache grow in place: worth it where many single tokens follow."""
        if self._cache is not None:
            give_room(self._cache)

    def read(self, tokens: Tensor) -> None:
        """Read one more token per row: [rows]."""
        new = tokens.unsqueeze(1)
        self._extend(new)
        if self._cache is not None:
            self.logits = self._last_logits(new, use_cache=True)
        else:
            with self._injected():
                self.logits = self._last_logits(self._ids, use_cache=False)

    def read_all(self, ids: Tensor, keep: Tensor) -> Tensor:
        """Read `ids` [rows, tokens] and return the logits where `keep` (same shape) is True.

        [kept, vocabulary], in row-major order. Afterwards the rows cannot be read on.
        """
        model = self._model
        ids, keep = ids.to(model.device), keep.to(model.device)
        self._extend(ids)
        if self._cache is not None:
            out = forward(
                model.network, input_ids=ids, cache=self._cache, use_cache=True, keep=keep
            )
            return kept_rows(out.logits, keep)
        whole = torch.zeros_like(self._ids, dtype=torch.bool)
        whole[:, -keep.shape[1] :] = keep
        with self._injected():
            out = forward(model.network, input_ids=self._ids, use_cache=False, keep=whole)
        return kept_rows(out.logits, whole)

    def _last_logits(self, ids: Tensor, use_cache: bool) -> Tensor:
        masked = {}
        if self._mask is not None:
            positions = (self._mask.cumsum(dim=1) - 1).clamp(min=0)[:, -ids.shape[1] :]
            masked = {"attention_mask": self._mask, "position_ids": positions}
        out = forward(
            self._model.network,
            input_ids=ids,
            cache=self._cache,
            use_cache=use_cache,
            keep=1,
            **masked,
        )
        self._cache = cache_of(out) if use_cache else None
        return out.logits[:, -1]

    def _extend(self, new: Tensor) -> None:
        self._ids = torch.cat([self._ids, new], dim=1)
        if self._mask is not None:
            self._mask = torch.cat([self._mask, self._mask.new_ones(new.shape)], dim=1)

    def _injected(self) -> AbstractContextManager[None]:
        """For a pass over the rows from their beginning."""
        soft = self._soft
        if soft is None:
            return nullcontext()
        embedding = self._model.embedding
        return injected(embedding, soft.tokens, soft.placeholder_id, soft.sites, self._soft_length)
