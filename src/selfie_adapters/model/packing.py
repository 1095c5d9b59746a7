"""Rows of different lengths in one row without padding: padding exists inside attention alone.

Norms, projections and MLPs work on tokens one by one; only attention has to know which row a token
belongs to. So a forward pass gets all tokens of a batch as one row [1, tokens], and each attention
layer gathers them into [rows, longest row], attends, and gathers the result back.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from selfie_adapters.model.attention import Product, additive


@dataclass(frozen=True)
class KeysValues:
    """Keys and values of tokens that have been read before, layer by layer.

    keys, values: [layers] tensors [n, key heads, tokens, width]. owners: [rows], which of the n
    each row has read; None: all rows have read the only one.
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    owners: Tensor | None = None

    @classmethod
    def in_cache(cls, cache: Any) -> KeysValues:
        """Those that a cache of transformers holds for one row."""
        return cls(tuple(x.keys for x in cache.layers), tuple(x.values for x in cache.layers))

    @property
    def length(self) -> int:
        return self.keys[0].shape[2]

    def of(self, owners: Tensor) -> KeysValues:
        """For rows of which each has read what one of the n has."""
        return KeysValues(self.keys, self.values, owners)

    def before(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """`keys` and `values` [rows, key heads, tokens, width] behind those read before."""
        past = self.keys[layer], self.values[layer]
        if self.owners is None or past[0].shape[0] == 1:
            past = tuple(x.expand(keys.shape[0], -1, -1, -1) for x in past)
        else:
            past = tuple(x.index_select(0, self.owners.to(x.device)) for x in past)
        new = keys, values
        found = [torch.cat([p.to(x.device), x], dim=2) for p, x in zip(past, new, strict=True)]
        return found[0], found[1]


@dataclass(frozen=True)
class Sizes:
    """tokens of the input, rows and width of the padded layout: what a pass's kernels depend on.

    full: no row is shorter than the layout is wide, so that nothing has to be gathered.
    """

    tokens: int
    rows: int
    width: int
    full: bool

    @classmethod
    def of(cls, lengths: Tensor, rounded: bool = False) -> Sizes:
        """Those of rows of these lengths. rounded: up to few different ones, for replaying."""
        tokens, rows, width = int(lengths.sum()), lengths.numel(), int(lengths.max())
        if tokens == rows * width or not rounded:
            return cls(tokens, rows, width, tokens == rows * width)
        return cls(
            _rounded(tokens), _rounded(rows), width + -width % (32 if width > 64 else 16), False
        )


def _rounded(n: int) -> int:
    """n rounded up, by 3 % on average and at most an eighth."""
    step = 1 << max(0, (n // 8).bit_length() - 1)
    return n + -n % step


class Packing:
    """The layout of a packed batch; active through `attention.laid_out`."""

    def __init__(
        self,
        lengths: Tensor,
        before: KeysValues | None,
        device: torch.device,
        dtype: torch.dtype,
        visible: Tensor | None = None,
        sizes: Sizes | None = None,
        record: Callable[[int, Tensor, Tensor], None] | None = None,
    ) -> None:
        """lengths: [rows], tokens of each row; row after row they make up the input.

        before: what the rows have read before. visible: bool [rows,
        longest, longest], query sees key; None: plainly causal. sizes: None or larger ones; tokens
        at the end of the input then belong to no row. record: is given each layer's keys and
        values, those before included.
        """
        self.sizes = sizes = sizes or Sizes.of(lengths)
        self.before = before
        self._record = record
        inside = torch.zeros(sizes.rows, sizes.width, dtype=torch.bool)
        inside[: lengths.numel()] = torch.arange(sizes.width) < lengths.unsqueeze(1)
        found = inside.flatten().nonzero().squeeze(1)
        slots = torch.zeros(sizes.tokens, dtype=torch.int64)  # of each token, in [rows · width]
        slots[: found.numel()] = found
        tokens = torch.zeros(inside.numel(), dtype=torch.int64)  # in each slot; anything in empty
        tokens[found] = torch.arange(found.numel())
        self._index = [to_device(x, device) for x in (slots, tokens, ~inside.flatten())]
        if visible is None:
            seen = torch.ones(1, sizes.width, sizes.width, dtype=torch.bool).tril()
        else:
            seen = torch.zeros(sizes.rows, sizes.width, sizes.width, dtype=torch.bool)
            seen[: visible.shape[0], : visible.shape[1], : visible.shape[2]] = visible
            # A query that sees nothing is NaN, and so would be the gradient of its row's keys.
            seen.diagonal(dim1=1, dim2=2).fill_(True)
        past = 0 if before is None else before.length
        if past:
            seen = torch.cat([torch.ones(*seen.shape[:2], past, dtype=torch.bool), seen], -1)
        self.is_causal = visible is None
        self._seen = to_device(seen, device)
        self._dtype = dtype
        self._masks: dict[tuple[int, torch.device], Tensor] = {}

    def copied(self) -> Packing:
        """One that `become` can change without changing this one."""
        other = copy.copy(self)
        other._index = [x.clone() for x in self._index]
        other._seen, other._masks = self._seen.clone(), {}
        return other

    def become(self, other: Packing) -> None:
        """Hold what `other`, of the same sizes and after the same tokens, holds, in place."""
        for kept, new in zip(self._index, other._index, strict=True):
            kept.copy_(new)
        if not self.is_causal:  # else it depends on the sizes alone
            self._seen.copy_(other._seen)
            for (shared, device), mask in self._masks.items():
                mask.copy_(other._mask(shared, device))

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, product: Product
    ) -> Tensor:
        """See `attention.Layout`."""
        heads, kv_heads = query.shape[1], key.shape[1]
        shared, size = heads // kv_heads, query.shape[-1]
        rows, width = self.sizes.rows, self.sizes.width
        # [tokens, key heads, query heads that share it, size]
        flat = query[0].transpose(0, 1).unflatten(1, (kv_heads, shared))
        folded = self._padded(flat).transpose(1, 2).reshape(rows, kv_heads, width * shared, size)
        keys, values = (self._padded(x[0].transpose(0, 1)).transpose(1, 2) for x in (key, value))
        if self.before is not None:
            keys, values = self.before.before(layer, keys, values)
        if self._record is not None:
            self._record(layer, keys, values)
        found = product(folded, keys, values, self._mask(shared, query.device))
        found = found.unflatten(2, (width, shared)).transpose(1, 2)
        return self._unpadded(found.reshape(rows * width, heads, size)).unsqueeze(0)

    def _padded(self, tokens: Tensor) -> Tensor:
        """[tokens, …] → [rows, width, …]."""
        if not self.sizes.full:
            slots, inside, _ = (x.to(tokens.device) for x in self._index)
            tokens = _Gather.apply(tokens, inside, slots, None)
        return tokens.unflatten(0, (self.sizes.rows, self.sizes.width))

    def _unpadded(self, slots: Tensor) -> Tensor:
        """[rows · width, …] → [tokens, …]."""
        if self.sizes.full:
            return slots
        return _Gather.apply(slots, *(x.to(slots.device) for x in self._index))

    def _mask(self, shared: int, device: torch.device) -> Tensor:
        """Additive, for queries in the order (place, query head): [rows or 1, 1, queries, keys]."""
        if (shared, device) not in self._masks:
            seen = self._seen.to(device).repeat_interleave(shared, dim=1).unsqueeze(1)
            self._masks[shared, device] = additive(seen, self._dtype)
        return self._masks[shared, device]


class _Gather(torch.autograd.Function):
    """x[index]; the gradient is gathered by the inverse index, where autograd would add it up."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, index: Tensor, inverse: Tensor, unread: Tensor | None
    ) -> Tensor:
        """unread: bool, the positions of x that `index` does not name; None: there are none.

        inverse: the position in `index` of each position of x (of unread ones: any).
        """
        ctx.save_for_backward(inverse, unread)
        return x.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        inverse, unread = ctx.saved_tensors
        found = grads[0].index_select(0, inverse)
        if unread is not None:
            found.masked_fill_(unread.view(-1, *[1] * (found.ndim - 1)), 0)
        return found, None, None, None


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """A copy on `device` that a GPU does not have to be waited for."""
    if device.type == "cuda" and values.device.type == "cpu":
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)
