"""Where a decoder's blocks and embeddings live, found by structure instead of by model name."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
    expected = _block_counts(network)
    found = [
        (name, module)
        for count in expected
        for name, module in network.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == count
    ]
    # A vision tower may happen to have as many blocks; the text decoder's path states so.
    text = [item for item in found if "vision" not in item[0] and "audio" not in item[0]]
    if not text:
        raise ModelError(
            f"{type(network).__name__} is no stack of decoder blocks: its configuration states "
            f"{' or '.join(map(str, expected)) or 'no number of'} layers, and there is no list of "
            "as many modules. Use a decoder-only language model (Llama, Qwen, Gemma, GPT-2, …)."
        )
    return text[0][1]


def _block_counts(network: PreTrainedModel) -> list[int]:
    """How many blocks the configuration states, the likeliest first.

    The decoder of an encoder-decoder model, saved alone, keeps the encoder's number as that of
    hidden layers; LongCat counts the two attention layers of a block, which it calls a layer.
    """
    config = network.config.get_text_config(decoder=True)
    names = ("decoder_layers", "num_hidden_layers", "num_layers")
    counts = (getattr(config, name, None) for name in names)
    return list(dict.fromkeys(count for count in counts if isinstance(count, int)))


def residual_width(network: PreTrainedModel) -> int:
    """d_model. Raises ModelError where the configuration has no hidden_size."""
    config = network.config.get_text_config(decoder=True)
    width = getattr(config, "hidden_size", None)
    if not isinstance(width, int):
        raise ModelError(
            f"{type(network).__name__}: its configuration states no hidden_size, the width "
            "of its blocks. Use a decoder-only language model (Llama, Qwen, Gemma, GPT-2, …)."
        )
    return width


def token_embedding(network: PreTrainedModel) -> nn.Module:
    """The module that turns token ids into vectors; soft tokens replace rows of its output."""
    embedding = network.get_input_embeddings()
    if embedding is None:
        raise ModelError(
            f"{type(network).__name__} has no input embedding. "
            "Only decoder models that embed token ids can hold a soft token."
        )
    return embedding


def check_structure(network: PreTrainedModel) -> None:
    """Raise ModelError for a network without blocks, width or embedding of a decoder."""
    decoder_blocks(network)
    residual_width(network)
    token_embedding(network)


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
