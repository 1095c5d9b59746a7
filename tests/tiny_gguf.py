"""A tiny Llama as a GGUF file, written with the gguf package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from gguf import GGUFWriter
from torch import Tensor
from transformers import PreTrainedModel

from tiny import LAYERS, VOCABULARY, golden_tokenizer, tiny_network

_NAMES = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_HEADS = {"attn_q": 4, "attn_k": 2}


def save_gguf(path: Path, seed: int = 0) -> PreTrainedModel:
    """Write `tiny_network("llama", seed)` in float32; returns the network."""
    network = tiny_network("llama", seed)
    weights = network.state_dict()
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(512)
    writer.add_embedding_length(32)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(network.config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(8)
    writer.add_vocab_size(VOCABULARY)
    _add_tokenizer(writer)
    writer.add_tensor("token_embd.weight", _array(weights["model.embed_tokens.weight"]))
    writer.add_tensor("output_norm.weight", _array(weights["model.norm.weight"]))
    writer.add_tensor("output.weight", _array(weights["lm_head.weight"]))
    for layer in range(LAYERS):
        for short, long in _NAMES.items():
            weight = weights[f"model.layers.{layer}.{long}.weight"]
            if heads := _HEADS.get(short):  # GGUF keeps the pairs of rotary dimensions together
                pairs = weight.view(heads, 2, -1, weight.shape[-1])
                weight = pairs.transpose(1, 2).reshape(weight.shape)
            writer.add_tensor(f"blk.{layer}.{short}.weight", _array(weight))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return network


def _add_tokenizer(writer: GGUFWriter) -> None:
    tokenizer = golden_tokenizer()
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    ids = range(VOCABULARY)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([str(tokenizer.convert_ids_to_tokens(i)) for i in ids])
    writer.add_token_types([3 if i in special else 1 for i in ids])
    writer.add_token_scores([0.0] * VOCABULARY)
    writer.add_bos_token_id(256)
    writer.add_eos_token_id(259)


def _array(weight: Tensor) -> np.ndarray:
    return weight.detach().to(torch.float32).contiguous().numpy()


def control_vector(path: Path, dtype: type, directions: dict[int, list[float]]) -> None:
    """Write a control vector as llama.cpp does: `direction.N` for block N."""
    writer = GGUFWriter(path, "controlvector")
    writer.add_string("controlvector.model_hint", "llama")
    writer.add_uint32("controlvector.layer_count", len(directions))
    for layer, direction in directions.items():
        writer.add_tensor(f"direction.{layer}", np.array(direction, dtype))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
