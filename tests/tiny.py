"""Tiny random models of every supported family, built in memory over the golden byte tokenizer."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

GOLDEN = Path(__file__).parent / "golden" / "llama"
VOCABULARY = 261  # 256 bytes and five special tokens
LAYERS = 3
D_MODEL = 32

_SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": D_MODEL,
    "intermediate_size": 64,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "bos_token_id": 256,
    "eos_token_id": 259,
    "pad_token_id": 259,
    "tie_word_embeddings": False,
}

_OVERRIDES: dict[str, dict[str, object]] = {
    "llama": {},
    "qwen2": {},
    "qwen3": {},
    # a window shorter than the prompt, so that sliding layers really slide
    "gemma2": {"tie_word_embeddings": True, "query_pre_attn_scalar": 8, "sliding_window": 16},
    "gemma3_text": {"tie_word_embeddings": True, "query_pre_attn_scalar": 8, "sliding_window": 16},
    "mistral": {"sliding_window": 16},
    "granite": {
        "embedding_multiplier": 12.0,
        "logits_scaling": 8.0,
        "residual_multiplier": 0.22,
        "attention_multiplier": 0.125,
    },
    "gpt_neox": {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}},
}
FAMILIES = tuple(_OVERRIDES)


def tiny_network(family: str, seed: int = 0) -> PreTrainedModel:
    """A random float32 network of `family`: 3 blocks, d_model 32, 261 tokens."""
    options = {**_SMALL, **_OVERRIDES[family]}
    if family == "gpt_neox":
        options.pop("num_key_value_heads"), options.pop("head_dim")
    config = CONFIG_MAPPING[family](**options)
    torch.manual_seed(seed)
    network = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    # the default initialisation (std 0.02) makes every output alike; spread it
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if weight.ndim == 2:
                weight.normal_(0.0, 0.15)
            elif "norm" not in name and weight.ndim == 1:
                weight.normal_(0.0, 0.05)
    return network


def golden_tokenizer():
    """Byte-level tokenizer with Llama 3's special tokens (ids 256 to 260)."""
    return AutoTokenizer.from_pretrained(GOLDEN / "model")
