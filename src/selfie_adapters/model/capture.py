"""Read the output of chosen blocks at chosen positions, and stop the forward pass after the last.

Hooks on the blocks, never `output_hidden_states`: its last entry is taken after the final norm.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import Cache

from selfie_adapters.errors import ModelError
from selfie_adapters.model.blocks import check_layer
from selfie_adapters.model.library import forward
from selfie_adapters.model.loading import FrozenModel


class _LastLayerReached(Exception):
    """Ends the forward pass early; never leaves this module."""


@torch.inference_mode()
def capture(
    model: FrozenModel,
    ids: Tensor,
    layers: Sequence[int],
    positions: Tensor | None = None,
    attention_mask: Tensor | None = None,
    cache: Cache | None = None,
    any_width: bool = False,
) -> Tensor:
    """Outputs of blocks `layers` for a batch of token ids.

    ids: [batch, tokens]. positions: [batch] gives one position a row and returns
    [batch, layers, d_model]; [batch, k] gives k a row, [batch, layers, k, d_model]; None returns
    every position, [batch, layers, tokens, d_model]. cache: keys and values of the tokens before.
    any_width: of a model with several residual streams, return those of a token one after another.
    Values are in the model's dtype. Raises ModelError for a layer that does not exist, for one that
    the model skips, and without any_width for outputs that are not d_model numbers per token.
    """
    order = [check_layer(layer, model.n_layers) for layer in layers]
    last = max(order)
    rows = torch.arange(ids.shape[0], device=model.device)
    if positions is not None and positions.ndim == 2:
        rows = rows.unsqueeze(1)
    taken: dict[int, Tensor] = {}
    # Of several predictions of the residual stream, the one that the next block computes with.
    active = getattr(model.network.config.get_text_config(decoder=True), "altup_active_idx", None)

    def hook_for(layer: int):
        def hook(_module: Any, _args: Any, output: Any) -> None:
            hidden = output[0] if isinstance(output, (tuple, list)) else output
            if hidden.ndim == 4 and active is not None:  # Gemma 3n: first the predictions
                hidden = hidden[active]
            if hidden.ndim > 3:
                hidden = hidden.flatten(2)
            if positions is None:
                taken[layer] = hidden
            else:
                taken[layer] = hidden[rows.to(hidden.device), positions.to(hidden.device)]
            if layer == last:
                raise _LastLayerReached

        return hook

    handles = [model.blocks[layer].register_forward_hook(hook_for(layer)) for layer in set(order)]
    try:
        forward(
            model.network,
            input_ids=ids.to(model.device),
            attention_mask=None if attention_mask is None else attention_mask.to(model.device),
            cache=cache,
            use_cache=cache is not None,
        )
    except _LastLayerReached:
        pass
    finally:
        for handle in handles:
            handle.remove()
    if skipped := sorted(set(order) - taken.keys()):
        raise ModelError(
            f"{model.name} skips block {', '.join(map(str, skipped))} for text alone (a block that "
            "attends to an image, most likely): it has no output to take. Choose other layers."
        )
    found = torch.stack([taken[layer].to(model.device) for layer in order], dim=1)
    if not any_width and found.shape[-1] != model.d_model:
        raise ModelError(
            f"{model.name}: a block's output has {found.shape[-1]} numbers per token where d_model "
            f"is {model.d_model}. Models that keep several residual streams (hyper-connections) "
            "have no state that is one vector; vectors from a file can be labelled with them."
        )
    return found
