"""Gradient checkpointing of a frozen model: blocks keep their input only and run twice."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from functools import partial
from typing import Any

from torch.utils.checkpoint import checkpoint

from selfie_adapters.model.loading import FrozenModel


def recompute_blocks(model: FrozenModel) -> None:
    """From now on each block's activations are computed again in the backward pass.

    Less memory, about a third more time. No cache may be passed in training, because the second
    pass would extend it again: see `prefix.WholePrompt`. Outside training nothing changes.
    """
    for block in model.blocks:
        block.forward = partial(_recomputed, block.forward)


def _recomputed(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    # The layout of a packed pass (`attention.laid_out`) is closed when the second pass runs.
    context = contextvars.copy_context()
    # Not transformers' own switch: it requests training mode, in which dropout comes to life.
    return checkpoint(context.run, forward, *args, use_reentrant=False, **kwargs)
