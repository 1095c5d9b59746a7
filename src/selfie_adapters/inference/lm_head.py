"""Stop a forward pass before the head, for models whose logits are one matrix product.

Most heads are a plain linear layer; some models then scale or cap the logits (Granite, Gemma 2).
Which it is, is measured once, not looked up: the layer's own output must be the model's logits.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from selfie_adapters.model import FrozenModel
from selfie_adapters.model.library import forward


class _HeadReached(Exception):
    """Ends the forward pass early; never leaves this module."""


@torch.no_grad()
def plain_head(model: FrozenModel) -> nn.Linear | None:
    """The head, if the model's logits are its output and nothing else; None if it must be run.

    A quantised head and one whose weights are kept elsewhere do not count as plain.
    """
    head = model.network.get_output_embeddings()
    # subclasses (quantised layers) keep their weights in other forms
    if type(head) is not nn.Linear or head.weight.device.type == "meta":
        return None
    seen: list[Tensor] = []

    def hook(_module: nn.Module, _args: Any, output: Tensor) -> None:
        seen.append(output)

    handle = head.register_forward_hook(hook)
    try:
        ids = torch.zeros(1, 1, dtype=torch.int64, device=model.device)
        logits = forward(model.network, input_ids=ids, use_cache=False).logits
    finally:
        handle.remove()
    same = len(seen) == 1 and seen[0].shape == logits.shape and torch.equal(seen[0], logits)
    return head if same else None


def hidden_before(head: nn.Linear, model: FrozenModel, **inputs: Any) -> Tensor:
    """What the head would be given in a forward pass of `inputs`; the head itself is not run."""
    taken: list[Tensor] = []

    def hook(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
        taken.append(args[0])
        raise _HeadReached

    handle = head.register_forward_pre_hook(hook)
    try:
        forward(model.network, **inputs)
    except _HeadReached:
        pass
    finally:
        handle.remove()
    return taken[0].to(head.weight.device)
