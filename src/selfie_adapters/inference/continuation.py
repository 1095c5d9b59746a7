"""Rows that a model has read and reads on, with its cache where the cache can be trusted.

Where a model's cache cannot be used (`cache_use`), rows are read again from their beginning.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor
from transformers import Cache

from selfie_adapters.inference.lm_head import lm_head, token_losses
from selfie_adapters.model import FrozenModel, injected
from selfie_adapters.model.cache_use import cache_use
from selfie_adapters.model.kv_cache import give_room


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
        self._head = lm_head(model)
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

    def make_room(self, tokens: int) -> None:
        """Let the cache grow in place by `tokens` tokens: worth it where single tokens follow."""
        if self._cache is not None:
            give_room(self._cache, tokens)

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
        device = self._model.device
        ids, keep = ids.to(device), keep.to(device)
        self._extend(ids)
        if self._cache is not None:
            masked = self._masked(ids.shape[1])
            return self._head.logits(keep, True, self._cache, input_ids=ids, **masked)[0]
        whole = torch.zeros_like(self._ids, dtype=torch.bool)
        whole[:, -keep.shape[1] :] = keep
        with self._injected():
            return self._head.logits(whole, False, input_ids=self._ids)[0]

    def losses(self, ids: Tensor, keep: Tensor, targets: Tensor) -> Tensor:
        """As `read_all`, but the cross-entropy of each target, in nats: [kept], float32."""
        logits = self.read_all(ids, keep)
        return token_losses(logits, targets.to(logits.device))

    def _last_logits(self, ids: Tensor, use_cache: bool) -> Tensor:
        masked = self._masked(ids.shape[1])
        logits, self._cache = self._head.logits(
            None, use_cache, self._cache, input_ids=ids, **masked
        )
        return logits

    def _masked(self, tokens: int) -> dict[str, Tensor]:
        """What hides the padding from a pass over the last `tokens` tokens."""
        if self._mask is None:
            return {}
        positions = (self._mask.cumsum(dim=1) - 1).clamp(min=0)[:, -tokens:]
        return {"attention_mask": self._mask, "position_ids": positions}

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


def padded_left(rows: Sequence[Sequence[int]], shared: int = 0) -> tuple[Tensor, Tensor]:
    """Ids [rows, width], and the mask [rows, shared + width] that hides the padding.

    Distances between tokens are what they are without padding. shared: tokens before all rows.
    """
    width = max(map(len, rows))
    ids = torch.zeros(len(rows), width, dtype=torch.int64)
    mask = torch.ones(len(rows), shared + width, dtype=torch.int64)
    for i, row in enumerate(rows):
        ids[i, width - len(row) :] = torch.tensor(row)
        mask[i, shared : shared + width - len(row)] = 0
    return ids, mask
