"""How many tokens go through the model at once, so that a batch of any size fits the machine."""

from __future__ import annotations

import os

import torch
from torch import nn

from selfie_adapters.model import FrozenModel

# Small parts stay in a CPU's cache; a GPU wants large products (docs/benchmarks.md).
TOKENS_A_PART = {"cpu": 512, "cuda": 32768}
_SHARE_OF_MEMORY = 0.5


def tokens_a_part(model: FrozenModel) -> int:
    """Tokens a part of a batch may have, at least 1.

    Bounded by the memory that the machine has beside the weights, not by what happens to be free:
    the same run is cut the same way, and so gives the same bits, each time.
    """
    device = model.device
    usual = TOKENS_A_PART.get(device.type, TOKENS_A_PART["cuda"])
    weights = sum(p.numel() * p.element_size() for p in model.network.parameters())
    left = (_total_memory(device) - weights) * _SHARE_OF_MEMORY
    return max(1, min(usual, int(left / max(1, bytes_a_token(model)))))


def bytes_a_token(model: FrozenModel) -> int:
    """What one token leaves behind for the backward pass: about what all linear layers of the
    blocks read and write. Their weights are frozen, so some of it is not kept, but what norms,
    rotations and activations keep between them makes up for it.
    """
    layers = [m for m in model.blocks.modules() if isinstance(m, nn.Linear)]
    return sum(m.in_features + m.out_features for m in layers) * model.dtype.itemsize


def _total_memory(device: torch.device) -> int:
    """Bytes of all GPUs, where the model is on one (it may be spread), else of the machine."""
    if device.type == "cuda":
        count = torch.cuda.device_count()
        return sum(torch.cuda.get_device_properties(i).total_memory for i in range(count))
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
