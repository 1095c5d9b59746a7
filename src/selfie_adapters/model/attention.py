"""The attention function of tested families: packed rows, and decoding without copies of keys.

transformers looks an attention function up by name. Ours is registered once and chosen once per
network, so nothing global changes while models run, and threads do not see each other. It does
what the network did before, with two exceptions:

- While a layout is active (`laid_out`), the layout attends: it knows which tokens of the input
  belong together (`packing.py`) or where earlier keys are kept (`kv_cache.py`).
- A few tokens after a cache, with key heads that query heads share (grouped-query attention): the
  library repeats keys and values once per query head, which then costs more than all matmuls.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask, sdpa_mask

from selfie_adapters.errors import ModelError

# Families whose attention is matmuls, a mask and a softmax; tested one by one.
FAMILIES = ("llama", "qwen2", "qwen3", "mistral", "granite", "gemma2", "gemma3_text")

_NAMES = {"eager": "selfie_eager", "sdpa": "selfie_sdpa"}
_FEW = 8  # query tokens; with more, the copies are small compared with the matmuls


class Layout(Protocol):
    """How the tokens of one forward pass attend to each other and to earlier ones."""

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, product: Product
    ) -> Tensor:
        """query: [1, heads, tokens, width]; key, value: [1, key heads, tokens, width].

        Returns [1, tokens, heads, width].
        """
        ...


class Product:
    """Softmax attention of queries that are folded onto the key head that they share.

    fused: by torch's fused kernel, or by two matmuls and a softmax in float32, which take less
    time for few queries.
    """

    def __init__(self, fused: bool, scaling: float | None, softcap: float | None) -> None:
        self._fused = fused and softcap is None
        self._scaling, self._softcap = scaling, softcap

    def for_few_queries(self) -> Product:
        return Product(False, self._scaling, self._softcap)

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """query: [rows, key heads, queries, width]; key, value: [rows, key heads, keys, width].

        mask: additive, [rows or 1, 1, queries, keys]. Returns the shape of `query`.
        """
        if self._fused:
            return _fused(query, key, value, mask, self._scaling)
        scaling = query.shape[-1] ** -0.5 if self._scaling is None else self._scaling
        weights = query @ key.transpose(2, 3) * scaling
        if self._softcap is not None:
            weights = torch.tanh(weights / self._softcap) * self._softcap
        if mask is not None:
            weights = weights + mask
        return weights.softmax(dim=-1, dtype=torch.float32).to(query.dtype) @ value


def _fused(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float | None
) -> Tensor:
    """One kernel of torch. On NVIDIA GPUs named, since torch may choose cuDNN's, which is
    slow to plan every shape that it has not seen."""
    if query.device.type != "cuda" or torch.version.cuda is None or query.shape[-1] % 8:
        return scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scaling)
    if mask is not None:
        mask = mask.expand(*query.shape[:2], -1, -1)  # aligned as `additive` makes it
    kept = torch.is_grad_enabled() and query.requires_grad
    kernel = torch.ops.aten._scaled_dot_product_efficient_attention
    return kernel(query, key, value, mask, kept, scale=scaling)[0]


_active: ContextVar[Layout | None] = ContextVar("selfie_layout", default=None)


@contextlib.contextmanager
def laid_out(layout: Layout) -> Iterator[None]:
    """While open, forward passes of this thread attend as `layout` does.

    Pass `no_mask` as their attention mask, position ids, and no cache.
    """
    token = _active.set(layout)
    try:
        yield
    finally:
        _active.reset(token)


def layout_is_active() -> bool:
    return _active.get() is not None


def no_mask(device: torch.device, dtype: torch.dtype) -> Tensor:
    """A mask that keeps the library from making one of [tokens, tokens]; layouts ignore it."""
    return torch.zeros(1, 1, 1, 1, device=device, dtype=dtype)


def install(network: PreTrainedModel) -> None:
    """Let a network of a tested family attend by our function; others keep theirs."""
    config = network.config.get_text_config(decoder=True)
    if config.model_type in FAMILIES and config._attn_implementation in _NAMES:
        network.set_attn_implementation(_NAMES[config._attn_implementation])


def is_installed(network: PreTrainedModel) -> bool:
    """Whether `network` can run under a layout."""
    config = network.config.get_text_config(decoder=True)
    return config._attn_implementation in _NAMES.values()


def takes_any_mask(network: PreTrainedModel) -> bool:
    """Whether a four-dimensional additive mask is respected."""
    return network.config._attn_implementation in (*_NAMES, *_NAMES.values())


def _attention(fused: bool) -> Callable[..., tuple[Tensor, Tensor | None]]:
    def attention(
        module: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        scaling: float | None = None,
        softcap: float | None = None,
        **options: Any,
    ) -> tuple[Tensor, Tensor | None]:
        layout = _active.get()
        if layout is not None:
            product = Product(fused, scaling, softcap)
            return layout.attend(module.layer_idx, query, key, value, product), None
        if attention_mask is not None and attention_mask.shape[-1] < key.shape[2]:
            raise ModelError(
                f"{type(module).__name__}: an attention mask for {attention_mask.shape[-1]} keys "
                f"where there are {key.shape[2]}. A pass under a layout was continued outside it."
            )
        queries, heads = query.shape[2], key.shape[1]
        few = queries <= _FEW and queries < key.shape[2] and heads < query.shape[1]
        # Some versions of the library's fused function leave the cap of logits out.
        if few or (fused and softcap is not None):
            product = Product(False, scaling, softcap)
            return _grouped(query, key, value, attention_mask, product), None
        options |= {"scaling": scaling, "softcap": softcap}
        if fused:
            return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
        if softcap is None:
            del options["softcap"]
        eager = vars(sys.modules[type(module).__module__])["eager_attention_forward"]
        return eager(module, query, key, value, attention_mask, **options)

    return attention


def _grouped(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, product: Product
) -> Tensor:
    """As the library's functions, but keys and values are not repeated for their query heads."""
    rows, heads, queries, width = query.shape
    shared = heads // key.shape[1]
    if mask is None and queries > 1:  # "causal", aligned to the last key
        seen = torch.ones(queries, key.shape[2], dtype=torch.bool, device=query.device)
        mask = seen.tril(key.shape[2] - queries)[None, None]
    if mask is not None:
        mask = mask if mask.is_floating_point() else additive(mask, query.dtype)
        mask = mask[..., : key.shape[2]].repeat(1, 1, shared, 1)
    together = query.reshape(rows, key.shape[1], shared * queries, width)
    found = product(together, key, value, mask)
    return found.reshape(rows, heads, queries, width).transpose(1, 2).contiguous()


def additive(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where `seen`, the dtype's lowest number elsewhere; laid out as fused kernels require."""
    *shape, keys = seen.shape
    room = keys + -keys % 16
    mask = torch.zeros(*shape, room, dtype=dtype, device=seen.device)[..., :keys]
    return mask.masked_fill_(~seen, torch.finfo(dtype).min)


def register(wrap: Callable[[Callable[..., Any]], Callable[..., Any]] = lambda f: f) -> None:
    """Make our functions known to transformers, wrapped: compiled blocks call them uncompiled."""
    for name, fused in (("eager", False), ("sdpa", True)):
        AttentionInterface.register(_NAMES[name], wrap(_attention(fused)))
    AttentionMaskInterface.register(_NAMES["eager"], eager_mask)
    AttentionMaskInterface.register(_NAMES["sdpa"], sdpa_mask)


register()
