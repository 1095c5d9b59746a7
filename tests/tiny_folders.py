"""Tiny random models written to folders: language models, and multimodal models around one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from selfie_adapters.model.quiet import quiet_loading
from tiny import D_MODEL, VOCABULARY, golden_tokenizer, tiny_network

Weights = dict[str, Tensor]

_TEXT: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": D_MODEL,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 256,
    "eos_token_id": 259,
    "pad_token_id": 259,
    "tie_word_embeddings": False,
}
_VISION: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
_ROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}
_IMAGE = {"image_token_id": 250, "video_token_id": 251}
_QWEN_VISION = {"depth": 2, "num_heads": 2, "patch_size": 14}
_QWEN_WIDE = {**_QWEN_VISION, "hidden_size": 16, "out_hidden_size": 32, "intermediate_size": 32}

MULTIMODAL: dict[str, dict[str, Any]] = {
    "mistral3": {
        "text_config": {**_TEXT, "model_type": "mistral", "head_dim": 8},
        "vision_config": {**_VISION, "model_type": "pixtral"},
        "image_token_index": 250,
    },
    "llava": {
        "text_config": {**_TEXT, "model_type": "llama"},
        "vision_config": {**_VISION, "model_type": "clip_vision_model"},
        "image_token_index": 250,
    },
    "idefics3": {
        "text_config": {**_TEXT, "model_type": "llama"},
        "vision_config": _VISION,
        "image_token_id": 250,
        "scale_factor": 1,
    },
    "smolvlm": {
        "text_config": {**_TEXT, "model_type": "llama"},
        "vision_config": _VISION,
        "image_token_id": 250,
        "scale_factor": 1,
    },
    "qwen2_vl": {
        "text_config": {**_TEXT, "rope_parameters": _ROPE},
        "vision_config": {**_QWEN_VISION, "embed_dim": 16, "hidden_size": 32, "mlp_ratio": 2},
        **_IMAGE,
    },
    "qwen2_5_vl": {
        "text_config": {**_TEXT, "rope_parameters": _ROPE},
        "vision_config": {**_QWEN_WIDE, "fullatt_block_indexes": [1]},
        **_IMAGE,
    },
    "qwen3_vl": {
        "text_config": {**_TEXT, "rope_parameters": _ROPE, "head_dim": 8},
        "vision_config": {
            **_QWEN_WIDE,
            "deepstack_visual_indexes": [0],
            "num_position_embeddings": 16,
        },
        **_IMAGE,
    },
    "mllama": {
        "text_config": {**_TEXT, "cross_attention_layers": [1]},
        "vision_config": {
            "hidden_size": 16,
            "attention_heads": 2,
            "num_hidden_layers": 2,
            "num_global_layers": 1,
            "intermediate_size": 32,
            "vision_output_dim": 48,
            "image_size": 28,
            "patch_size": 14,
            "max_num_tiles": 1,
            "supported_aspect_ratios": [[1, 1]],
            "intermediate_layers_indices": [0, 1],
        },
        "image_token_index": 250,
    },
    "gemma3": {
        "text_config": {
            **_TEXT,
            "head_dim": 8,
            "tie_word_embeddings": True,
            "query_pre_attn_scalar": 8,
            "sliding_window": 16,
        },
        "vision_config": {**_VISION, "model_type": "siglip_vision_model"},
        "mm_tokens_per_image": 4,
        "image_token_index": 250,
    },
}


def save_family(folder: Path, family: str = "llama", seed: int = 0, **changed: object) -> Path:
    """A language model of `tiny_network` with its tokenizer, as save_pretrained writes it."""
    return _saved(tiny_network(family, seed, **changed), folder)


def save_causal(folder: Path, kind: str, **options: Any) -> Path:
    """A language model of any configuration class, with the golden tokenizer."""
    torch.manual_seed(0)
    config = CONFIG_MAPPING[kind](**options)
    return _saved(AutoModelForCausalLM.from_config(config, dtype=torch.float32), folder)


def save_multimodal(folder: Path, kind: str) -> Path:
    """A model of MULTIMODAL: 4 decoder blocks and a vision tower of 2, float32."""
    torch.manual_seed(0)
    config = CONFIG_MAPPING[kind](**MULTIMODAL[kind])
    return _saved(AutoModelForImageTextToText.from_config(config, dtype=torch.float32), folder)


def _saved(network: Any, folder: Path) -> Path:
    with quiet_loading():
        network.save_pretrained(folder)
        golden_tokenizer().save_pretrained(folder)
    return folder


def change_weights(folder: Path, change: Callable[[Weights], Weights]) -> Path:
    """Rewrite the folder's model.safetensors."""
    file = folder / "model.safetensors"
    changed = {key: weight.clone() for key, weight in change(load_file(file)).items()}
    save_file(changed, file, metadata={"format": "pt"})
    return folder


def nudge_weight(folder: Path) -> Path:
    """Change one number in the middle of the folder's weights to the next representable one."""

    def nudged(weights: Weights) -> Weights:
        one = weights["model.layers.1.mlp.up_proj.weight"]
        one[7, 5] = torch.nextafter(one[7, 5], one[7, 5] + 1)
        return weights

    return change_weights(folder, nudged)
