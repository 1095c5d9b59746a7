"""Decoder blocks compiled for passes under a layout, which hold no cache and no mask.

Compiling fuses norms, rotary embedding, activations and residuals, about half of a block's time on
a GPU, and removes most launches. All blocks of a network share one compiled function; attention
stays outside it (`attention.register`), so a region is what is between two attention calls.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from selfie_adapters.errors import first_line
from selfie_adapters.model import attention
from selfie_adapters.model.loading import FrozenModel

_log = logging.getLogger(__name__)


# Compiling takes about 25 s, however large the model, and saves a quarter of a GPU's time: below
# this much work for it (100 s on an H100) it does not pay.
_WORTH_FLOP = 5e16


def compile_if_worth(model: FrozenModel, tokens: float) -> None:
    """`compile_blocks` for a training run over `tokens` tokens on a CUDA device."""
    flop = 4.0 * sum(parameter.numel() for parameter in model.blocks.parameters()) * tokens
    if model.device.type == "cuda" and flop >= _WORTH_FLOP:
        compile_blocks(model)


def compile_blocks(model: FrozenModel) -> None:
    """From now on passes under a layout run compiled blocks; all others run as before.

    Where compiling fails, one line is logged and the blocks run uncompiled.
    """
    blocks = list(model.blocks)
    if any(hasattr(block, "_hf_hook") or "forward" in vars(block) for block in blocks):
        return  # spread over devices, or recomputed: another function is in charge
    attention.register(torch.compiler.disable)
    compiled: dict[type[nn.Module], Callable[..., Any]] = {}
    for block in blocks:
        kind = type(block)
        if kind not in compiled:
            compiled[kind] = torch.compile(kind.forward, dynamic=True)
        block.forward = partial(_forward, block, compiled)


def _forward(
    block: nn.Module, compiled: dict[type[nn.Module], Callable[..., Any]], *args: Any, **kwargs: Any
) -> Any:
    kind = type(block)
    if kind not in compiled or not attention.layout_is_active():
        return kind.forward(block, *args, **kwargs)
    try:
        return compiled[kind](block, *args, **kwargs)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # compilers raise what they like; a wrong call is raised again below
        _log.warning("%s is not compiled: %s", kind.__name__, first_line(error))
        del compiled[kind]
        return kind.forward(block, *args, **kwargs)
