from __future__ import annotations

import pytest
import torch

from selfie_adapters.inference import microbatch
from selfie_adapters.inference.microbatch import bytes_per_token, tokens_per_microbatch
from selfie_adapters.model import FrozenModel
from tiny import golden_tokenizer, tiny_network


@pytest.fixture
def model():
    return FrozenModel(tiny_network("llama"), golden_tokenizer(), "tiny")


def test_a_token_costs_what_the_layers_read_and_write(model):
    # 3 blocks of width 32: queries and output 32 → 32, keys and values 32 → 16 (2 of 4 heads),
    # gate and up 32 → 64, down 64 → 32; 4 bytes a number
    a_block = 2 * (32 + 32) + 2 * (32 + 16) + 3 * (32 + 64)
    assert bytes_per_token(model) == 3 * a_block * 4


def test_a_part_fits_half_of_the_memory_beside_the_weights(model, monkeypatch):
    weights = sum(p.numel() for p in model.network.parameters()) * 4
    room = 100 * bytes_per_token(model)
    monkeypatch.setattr(microbatch, "_total_memory", lambda _device: weights + 2 * room)
    assert tokens_per_microbatch(model) == 100
    monkeypatch.setattr(microbatch, "_total_memory", lambda _device: 0)
    assert tokens_per_microbatch(model) == 1  # a row is the least there is


def test_a_small_model_is_bounded_by_speed_alone(model):
    assert tokens_per_microbatch(model) == microbatch.TOKENS_PER_MICROBATCH["cpu"]
    assert microbatch._total_memory(torch.device("cpu")) > 2**28


def test_rows_per_batch_are_256_on_a_cpu_and_as_many_as_fit_on_a_gpu(model, monkeypatch):
    assert microbatch.rows_per_batch(model) == 256
    monkeypatch.setattr(FrozenModel, "device", torch.device("cuda"))
    weights = sum(p.numel() * p.element_size() for p in model.network.parameters())
    config = model.network.config
    keys = model.n_layers * config.num_key_value_heads * config.head_dim
    row = 64 * 2 * (2 * keys * 4) + 12 * model.vocab_size  # 64 tokens, twice; keys and values
    for rows, expected in ((10**6, 2048), (1500, 1024), (300, 256), (1, 64)):
        memory = weights + rows * row / 0.35
        monkeypatch.setattr(microbatch, "_total_memory", lambda _device, memory=memory: memory)
        assert microbatch.rows_per_batch(model) == expected
