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
# What makes the scoring evaluation take seconds.
SMALL_SCORING = {
    "label_tokens": 3,
    "conversations": 2,
    "conversation_tokens": 6,
    "thresholds": [0.0, 0.5],
    "negatives": 3,
    "latents_at_once": 2,
}

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

_LINEAR = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "layer_types": ["linear_attention", "full_attention", "linear_attention"],
}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
_MAMBA = {"mamba_d_head": 8, "mamba_n_heads": 8, "mamba_d_state": 8, "mamba_n_groups": 1}
_OVERRIDES |= {
    "qwen3_5_text": _LINEAR,
    "qwen3_next": _LINEAR | _EXPERTS | {"shared_expert_intermediate_size": 32},
    "lfm2": {"layer_types": ["conv", "full_attention", "conv"]},
    "jamba": {
        "attn_layer_period": 3,
        "attn_layer_offset": 1,
        "num_experts": 2,
        "num_experts_per_tok": 1,
        "mamba_d_state": 8,
        "mamba_dt_rank": 4,
    },
    "bamba": _MAMBA | {"attn_layer_indices": [1]},
    "zamba2": {
        "mamba_d_state": 8,
        "mamba_ngroups": 1,
        "n_mamba_heads": 8,
        "mamba_headdim": 8,
        "num_mem_blocks": 1,
        "layers_block_type": ["mamba", "hybrid", "mamba"],
        "hybrid_layer_ids": [1],
        "attention_head_dim": 16,
    },
    "falcon_h1": _MAMBA | {"mamba_d_ssm": 64},
    "nemotron_h": {
        "layers_block_type": ["linear_attention", "full_attention", "mlp"],
        "hybrid_override_pattern": "M*-",
        "mamba_num_heads": 8,
        "mamba_head_dim": 8,
        "ssm_state_size": 8,
        "n_groups": 1,
        "chunk_size": 8,
    },
    "granitemoehybrid": _MAMBA
    | {
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "layer_types": ["mamba", "attention", "mamba"],
        "shared_intermediate_size": 32,
    },
    "minimax": {
        "num_local_experts": 4,
        "layer_types": ["linear_attention", "full_attention", "linear_attention"],
        "block_size": 16,
    },
    "mamba": {"state_size": 8},
    "mamba2": {"state_size": 8, "num_heads": 8, "head_dim": 8, "n_groups": 1},
    "falcon_mamba": {"state_size": 8},
    "recurrent_gemma": {
        "lru_width": 32,
        "attention_window_size": 16,
        "block_types": ["recurrent", "recurrent", "attention"],
    },
    "rwkv": {"context_length": 512, "attention_hidden_size": 32},
    "gemma3n_text": {
        "vocab_size_per_layer_input": VOCABULARY,
        "hidden_size_per_layer_input": 8,
        "sliding_window": 16,
        "num_kv_shared_layers": 1,
        "laurel_rank": 8,
        "intermediate_size": [64] * LAYERS,
        "activation_sparsity_pattern": [0.0] * LAYERS,
        "layer_types": ["sliding_attention", "full_attention", "full_attention"],
    },
    "gpt2": {},
    "openai-gpt": {},
    "opt": {"ffn_dim": 64},
    "gpt_neo": {"attention_types": [[["global", "local", "local"], 1]]},
    "llama4_text": {"intermediate_size_mlp": 64, "num_local_experts": 4},
    "moshi": {"sliding_window": 16, "num_key_value_heads": 4, "ffn_dim": 64},
    "longcat_flash": {  # each of its blocks counts as two layers
        "num_layers": LAYERS,
        "num_hidden_layers": 2 * LAYERS,
        "num_key_value_heads": 4,
        "ffn_hidden_size": 64,
        "expert_ffn_hidden_size": 32,
        "n_routed_experts": 4,
        "zero_expert_num": 2,
        "moe_topk": 2,
        "q_lora_rank": 16,
        "kv_lora_rank": 16,
        "qk_nope_head_dim": 8,
        "qk_rope_head_dim": 8,
        "v_head_dim": 8,
    },
    "deepseek_v4": {  # several residual streams
        "num_key_value_heads": 1,
        "moe_intermediate_size": 32,
        "n_routed_experts": 4,
        "num_local_experts": 4,
        "q_lora_rank": 16,
        "o_lora_rank": 16,
        "o_groups": 2,
        "index_n_heads": 2,
        "index_head_dim": 16,
    },
    "xlnet": {"d_model": D_MODEL, "n_layer": LAYERS, "n_head": 4, "d_inner": 64},  # sees all
    "bert": {},  # an encoder: loaded as a language model, it looks at later tokens
}
# Models that keep states instead of keys and values, or both.
RECURRENT = (
    "qwen3_5_text",
    "qwen3_next",
    "lfm2",
    "jamba",
    "bamba",
    "zamba2",
    "falcon_h1",
    "nemotron_h",
    "granitemoehybrid",
    "minimax",
    "mamba",
    "mamba2",
    "falcon_mamba",
    "recurrent_gemma",
    "rwkv",
)
_NO_KEY_HEADS = ("gpt_neox", "gpt_neo", "mamba", "falcon_mamba", "rwkv", "opt", "xlnet", "bert")


def tiny_network(family: str, seed: int = 0, **changed: object) -> PreTrainedModel:
    """A random float32 network of `family`: 3 blocks, d_model 32, 261 tokens."""
    options = {**_SMALL, **_OVERRIDES[family], **changed}
    if family in _NO_KEY_HEADS:
        options.pop("num_key_value_heads"), options.pop("head_dim")
    if family in ("gpt2", "openai-gpt"):  # they have names of their own
        sizes = {"vocab_size": VOCABULARY, "n_embd": D_MODEL, "n_layer": LAYERS, "n_head": 4}
        options = {**sizes, "n_positions": 64}
    if family == "xlnet":  # it has no limit of length, and takes none
        options.pop("max_position_embeddings")
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
