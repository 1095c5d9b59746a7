"""Where a decoder's blocks and embeddings live, found by structure instead of by model name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from transformers import PreTrainedModel

from selfie_adapters.errors import ModelError

if TYPE_CHECKING:
    from selfie_adapters.model.loading import FrozenModel


def decoder_blocks(network: PreTrainedModel) -> nn.ModuleList:
    """The list of decoder blocks: `blocks[L]` is what this project calls layer L (zero-based).

    It is the one `ModuleList` with as many modules as the configuration has hidden layers, all of
    one class or nearly so. Raises ModelError if there is none.
    """
    expected = network.config.get_text_config(decoder=True).num_hidden_layers
    found = [
        (name, module)
        for name, module in network.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == expected
    ]
    # A vision tower may happen to have as many blocks; the text decoder's path states so.
    text = [item for item in found if "vision" not in item[0] and "audio" not in item[0]]
    if not text:
        raise ModelError(
            f"{type(network).__name__}: no list of {expected} decoder blocks found. "
            "Extend selfie_adapters/model/blocks.py for this architecture."
        )
    return text[0][1]


def token_embedding(network: PreTrainedModel) -> nn.Module:
    """The module that turns token ids into vectors; soft tokens replace rows of its output."""
    embedding = network.get_input_embeddings()
    if embedding is None:
        raise ModelError(
            f"{type(network).__name__} has no input embedding. "
            "Only decoder models that embed token ids can hold a soft token."
        )
    return embedding


def check_embedding_width(model: FrozenModel) -> None:
    """Raise ModelError unless the embedding layer's output is as wide as the residual stream.

    A soft token is a vector of the residual stream and replaces a row of that output.
    """
    ids = torch.zeros(1, 1, dtype=torch.int64, device=model.device)
    with torch.no_grad():
        width = model.embedding(ids).shape[-1]
    if width != model.d_model:
        raise ModelError(
            f"{model.name} embeds tokens in {width} numbers and projects them to its d_model "
            f"{model.d_model} afterwards, so a vector of width {model.d_model} cannot be its soft "
            "token. Use a model whose embedding has the width of its blocks."
        )


def blocks_with_text(model: FrozenModel) -> list[int]:
    """Zero-based numbers of the blocks that text alone runs through, rising.

    The others attend to an image and are skipped without one (Mllama).
    """
    config = model.network.config.get_text_config(decoder=True)
    images = set(getattr(config, "cross_attention_layers", None) or ())
    return [block for block in range(model.n_layers) if block not in images]


def check_layer(layer: int, n_layers: int) -> int:
    """`layer` if it is a valid zero-based block number, otherwise ModelError."""
    if not 0 <= layer < n_layers:
        raise ModelError(
            f"layer {layer}: the model has {n_layers} blocks. "
            f"Layer L is the output of decoder block L; choose 0 to {n_layers - 1}."
        )
    return layer
