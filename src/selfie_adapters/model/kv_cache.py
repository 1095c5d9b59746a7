"""A key/value cache of ours: keys and values of rows that read one token each per pass.

It is a layout (`attention.Layout`): blocks see no cache object, so that they can be compiled, and a
token is written into tensors that have room for all tokens to come, where nothing is copied. Those
tensors stay where they are, so that a pass can be replayed, for one batch of rows after another.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import DynamicLayer

from selfie_adapters.model.attention import Product, additive
from selfie_adapters.model.loading import FrozenModel
from selfie_adapters.model.packed_pass import PackedPass
from selfie_adapters.model.packing import KeysValues, Sizes


class ReadRows:
    """What rows of one length have read, put together from the parts of a packed pass."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    def fill(self, layer: int, keys: Tensor, values: Tensor, first: int) -> None:
        """Take what the rows from `first` on have read: [rows, key heads, tokens, width]."""
        for kept, new in ((self.keys, keys), (self.values, values)):
            if layer == len(kept):
                kept.append(new.new_empty(self._rows, *new.shape[1:]))
            kept[layer][first : first + new.shape[0]] = new

    def filled(self) -> KeysValues:
        return KeysValues(tuple(self.keys), tuple(self.values))


class Slots:
    """Room for rows of one length; active through `attention.laid_out`, its input is [1, rows]."""

    def __init__(self, model: FrozenModel, rows: int, room: int) -> None:
        """room: tokens that a row may hold."""
        self._model = model
        self._pass = PackedPass(model)
        self.user: Callable[[], object] = lambda: None  # None: nobody's, free to be taken
        self.capacity, self.room = rows, room
        self._rows = self._length = 0
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []
        # Where the pass under way writes, and what it sees: read by replayed passes.
        self._at: Tensor | None = None
        self._mask: Tensor | None = None

    def take(self, read: ReadRows) -> None:
        """Hold what `read` does, which is used up."""
        self._rows, _, self._length, _ = read.keys[0].shape
        # Written in and out of inference mode.
        with torch.inference_mode(False), torch.no_grad():
            for kept, new in ((self._keys, read.keys), (self._values, read.values)):
                for layer in range(len(new)):
                    x = new[layer]
                    if layer == len(kept):
                        # What is not written yet is masked, but has to be finite.
                        shape = (self.capacity, x.shape[1], self.room, x.shape[3])
                        kept.append(torch.zeros(shape, dtype=x.dtype, device=x.device))
                    kept[layer][: self._rows, :, : self._length] = x
                    new[layer] = x.new_empty(0, *x.shape[1:])
            device, place = self._model.device, torch.arange(self.room)
            seen = (place <= self._length).to(device).view(1, 1, 1, -1)
            if self._mask is None or self._at is None:
                self._at = torch.zeros(1, dtype=torch.int64, device=device)
                self._mask = additive(seen, self._model.dtype)
            self._mask.copy_(additive(seen, self._model.dtype))
            self._at.fill_(self._length)

    def select(self, rows: Tensor) -> None:
        """Keep `rows` ([n] row numbers), in that order."""
        self._rows = len(rows)
        for x in (*self._keys, *self._values):
            x[: self._rows, :, : self._length] = x[:, :, : self._length].index_select(
                0, rows.to(x.device)
            )

    def read(self, tokens: Tensor) -> Tensor:
        """The decoder's output [rows, d_model] after one more token per row: [rows]."""
        assert self._at is not None
        assert self._mask is not None
        spare = self._replayed_rows() - self._rows
        tokens = torch.nn.functional.pad(tokens.to(self._model.device), (0, spare))
        embedded = self._model.embedding(tokens.unsqueeze(0))
        positions = torch.full((len(tokens),), self._length)
        found = self._pass.hidden(embedded, positions, self)[: self._rows]
        self._length += 1
        if self._length < self.room:
            self._at.fill_(self._length)
            self._mask[..., self._length] = 0
        return found

    def _replayed_rows(self) -> int:
        """Rows of a pass: as few different numbers as there are halves of the capacity."""
        if not self._pass.replays:
            return self._rows
        rows = self.capacity
        while rows // 2 >= self._rows and rows > 16:
            rows = -(-rows // 2)
        return rows

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, product: Product
    ) -> Tensor:
        """See `attention.Layout`."""
        assert self._at is not None
        assert self._mask is not None
        heads, kv_heads, rows, width = query.shape[1], *key.shape[1:]
        keys, values = self._keys[layer][:rows], self._values[layer][:rows]
        keys.index_copy_(2, self._at.to(keys.device), key[0].transpose(0, 1).unsqueeze(2))
        values.index_copy_(2, self._at.to(keys.device), value[0].transpose(0, 1).unsqueeze(2))
        # The query heads of a key head are its queries.
        folded = query[0].transpose(0, 1).reshape(rows, kv_heads, heads // kv_heads, width)
        found = product.for_few_queries()(folded, keys, values, self._mask.to(keys.device))
        return found.reshape(1, rows, heads, width)

    # What `PackedPass` asks of a layout that it replays.

    is_causal = True

    @property
    def sizes(self) -> Sizes:
        rows = self._replayed_rows()
        return Sizes(rows, rows, self.room, full=False)

    def copied(self) -> Slots:
        return self

    def become(self, other: Slots) -> None:
        assert other is self


class _GrowingLayer(DynamicLayer):
    """Keys and values as views of tensors that have room behind them."""

    def __init__(self, layer: DynamicLayer, tokens: int) -> None:
        super().__init__()
        self._more = tokens
        self.device = layer.device
        self.keys, self.values = layer.keys, layer.values
        self.is_initialized = True
        self._room: tuple[Tensor, Tensor] | None = None
        self._seen: Tensor | None = None  # the keys that the room holds

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        kept_keys, kept_values = self.keys, self.values
        if kept_keys is None or kept_values is None:  # it was reset
            return super().update(key_states, value_states)
        length = kept_keys.shape[-2]
        wanted = length + key_states.shape[-2]
        if self._room is None or kept_keys is not self._seen or wanted > self._room[0].shape[-2]:
            self._room = (
                _wider(kept_keys, wanted + self._more),
                _wider(kept_values, wanted + self._more),
            )
        keys, values = self._room
        keys[:, :, length:wanted] = key_states
        values[:, :, length:wanted] = value_states
        self.keys, self.values = keys[:, :, :wanted], values[:, :, :wanted]
        self._seen = self.keys
        return self.keys, self.values


def _wider(kept: Tensor, tokens: int) -> Tensor:
    rows, heads, length, width = kept.shape
    wider = kept.new_empty(rows, heads, tokens, width)
    wider[:, :, :length] = kept
    return wider


def give_room(cache: Cache, tokens: int) -> None:
    """Let a filled cache grow in place, `tokens` tokens at a time; sliding and other layers stay
    as they are."""
    for number, layer in enumerate(cache.layers):
        if type(layer) is DynamicLayer and layer.is_initialized:
            cache.layers[number] = _GrowingLayer(layer, tokens)
