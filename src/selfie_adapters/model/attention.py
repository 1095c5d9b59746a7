"""Attention that does not copy keys and values for the query heads that share them.

With few key heads (grouped-query attention) the plain "eager" kernel first repeats each for its
query heads: when text is written for many rows, those copies cost more than all products.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import eager_mask

_NAME = "selfie_grouped"

# Families whose attention is products, a mask and a softmax; tested one by one.
FAMILIES = ("llama", "qwen2", "qwen3", "mistral", "granite", "gemma2", "gemma3_text")


def _grouped(
    _module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    **_options: Any,
) -> tuple[Tensor, None]:
    """query: [rows, heads, queries, width]; key, value: [rows, key heads, tokens, width]."""
    rows, heads, queries, width = query.shape
    shared = heads // key.shape[1]
    together = query.reshape(rows, key.shape[1], shared * queries, width)
    weights = together @ key.transpose(2, 3) * (width**-0.5 if scaling is None else scaling)
    if softcap is not None:
        weights = torch.tanh(weights / softcap) * softcap
    weights = weights.view(rows, key.shape[1], shared, queries, -1)
    if attention_mask is not None:
        weights = weights + attention_mask[:, :, None, :, : key.shape[2]]
    weights = weights.softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    out = weights.view(rows, key.shape[1], shared * queries, -1) @ value
    return out.view(rows, heads, queries, width).transpose(1, 2).contiguous(), None


AttentionInterface.register(_NAME, _grouped)
AttentionMaskInterface.register(_NAME, eager_mask)


@contextlib.contextmanager
def grouped_attention(network: PreTrainedModel) -> Iterator[None]:
    """Inside, an eager Llama-like network with shared key heads attends without copies.

    Other networks stay as they are.
    """
    config = network.config.get_text_config(decoder=True)
    known = config.model_type in FAMILIES and config._attn_implementation == "eager"
    if not known or config.num_key_value_heads == config.num_attention_heads:
        yield
        return
    network.set_attn_implementation(_NAME)
    try:
        yield
    finally:
        network.set_attn_implementation("eager")
