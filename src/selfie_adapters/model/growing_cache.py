"""A key/value cache with room to grow: a token is written into it, not the whole cache copied."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import Cache
from transformers.cache_utils import DynamicLayer


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
