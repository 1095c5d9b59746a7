"""Which class loads a model's text part: a causal decoder, alone or inside a multimodal model."""

from __future__ import annotations

from typing import Any

from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
)

from selfie_adapters.errors import ModelError
from selfie_adapters.model.blocks import decoder_blocks

# Their `is_decoder` is False although they know no other attention than the causal one.
_ALWAYS_CAUSAL = ("gpt_neox", "gpt_neox_japanese")


def text_model_class(config: PretrainedConfig, name: str) -> Any:
    """The transformers class that loads the model with its text decoder.

    Raises ModelError with the reason for a model that has none: an encoder, an encoder-decoder, or
    a model that is not for text.
    """
    text = config.get_text_config(decoder=True)
    kind = config.model_type
    if getattr(config, "is_encoder_decoder", False) or getattr(text, "is_encoder_decoder", False):
        raise ModelError(
            f"{name}: {kind} is an encoder-decoder model. A soft token needs a decoder-only "
            "language model (Llama, Qwen, Gemma, GPT-2, …)."
        )
    if not getattr(text, "is_decoder", True) and text.model_type not in _ALWAYS_CAUSAL:
        raise ModelError(
            f"{name}: {kind} is an encoder (is_decoder is false in its configuration); it cannot "
            "continue text. A soft token needs a decoder-only language model (Llama, Qwen, …)."
        )
    if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING:
        return AutoModelForCausalLM
    if type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        return AutoModelForImageTextToText
    raise ModelError(
        f"{name}: the installed transformers has no text-generating class for {kind}. Use a "
        "decoder-only language model, or a newer transformers."
    )


def is_text_part(network: PreTrainedModel, config: PretrainedConfig) -> bool:
    """Whether `network` is the text model alone of the multimodal model that `config` describes."""
    return config.get_text_config(decoder=True) is not config and type(network.config) is not type(
        config
    )


def drop_other_towers(network: PreTrainedModel) -> None:
    """Remove the vision and audio models of a multimodal model: text alone never calls them."""
    if network.config.get_text_config(decoder=True) is network.config:
        return
    blocks = decoder_blocks(network)
    path = next(name for name, module in network.named_modules() if module is blocks)
    parent: Any = network
    for part in path.split(".")[:-1]:
        for name, child in list(parent.named_children()):
            # Embedders and projectors stay: some models touch them for text as well.
            if name != part and isinstance(child, PreTrainedModel):
                setattr(parent, name, None)
        parent = getattr(parent, part)
