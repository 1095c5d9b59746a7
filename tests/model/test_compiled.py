from __future__ import annotations

import logging

import pytest
import torch

from selfie_adapters.model import FrozenModel, attention, compiled
from selfie_adapters.model.attention import laid_out, no_mask
from selfie_adapters.model.compiled import compile_blocks, compile_if_worth
from selfie_adapters.model.packing import Packing
from selfie_adapters.model.recompute import recompute_blocks
from tiny import LAYERS, golden_tokenizer, tiny_network


@pytest.fixture
def model(monkeypatch):
    monkeypatch.setattr(attention, "register", lambda _wrap: None)  # for all networks
    return FrozenModel(tiny_network("llama"), golden_tokenizer(), "tiny")


def passes(model):
    """A pass under a layout, and the same rows without one."""
    ids = torch.arange(6).view(1, 6)
    device, dtype = torch.device("cpu"), torch.float32
    with torch.no_grad():
        with laid_out(Packing(torch.tensor([6]), None, device, dtype)):
            packed = model.network(
                ids, position_ids=ids, attention_mask=no_mask(device, dtype), use_cache=False
            )
        return packed.logits, model.network(ids, use_cache=False).logits


def test_only_passes_under_a_layout_are_compiled(model, monkeypatch):
    calls = []
    kinds = []

    def fake(function, dynamic):
        kinds.append(function)
        return lambda *args, **kwargs: (calls.append(1), function(*args, **kwargs))[1]

    monkeypatch.setattr(torch, "compile", fake)
    expected = passes(model)
    compile_blocks(model)
    compile_blocks(model)  # a second run on the same model
    assert kinds == [type(model.blocks[0]).forward]  # one function for all blocks
    found = passes(model)
    assert len(calls) == LAYERS
    for mine, theirs in zip(found, expected, strict=True):
        assert torch.equal(mine, theirs)


def test_blocks_that_do_not_compile_run_as_they_are(model, monkeypatch, caplog):
    def fake(_function, dynamic):
        def fails(*_args, **_kwargs):
            raise NotImplementedError("no compiler\nsecond line")

        return fails

    monkeypatch.setattr(torch, "compile", fake)
    expected = passes(model)
    compile_blocks(model)
    with caplog.at_level(logging.WARNING):
        found = passes(model)
    assert [r.getMessage() for r in caplog.records] == [
        "LlamaDecoderLayer is not compiled: no compiler"
    ]
    assert torch.equal(found[0], expected[0])


def test_recomputed_blocks_are_left_alone(model, monkeypatch):
    monkeypatch.setattr(torch, "compile", pytest.fail)
    recompute_blocks(model)
    compile_blocks(model)


def test_small_runs_and_cpus_compile_nothing(model, monkeypatch):
    made = []
    monkeypatch.setattr(compiled, "compile_blocks", made.append)
    compile_if_worth(model, 1e15)
    assert not made
