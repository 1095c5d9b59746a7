"""The proofs of `selfie doctor` hold for every family, and each fails where its fact is broken."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch

from selfie_adapters.model import FrozenModel, SharedPrefix, SoftPrompt, proof
from selfie_adapters.model.proof import prove
from tiny import FAMILIES, golden_tokenizer, tiny_network

NAMES = ["one begin token", "injection", "soft token", "shared prefix"]


def proofs(model):
    prompt = SoftPrompt.for_tokenizer(model.tokenizer).bind(model.tokenizer)
    return {one.name: one for one in prove(model, prompt)}


@pytest.mark.parametrize("family", FAMILIES)
def test_they_hold_for_every_family(family):
    found = proofs(FrozenModel(tiny_network(family), golden_tokenizer(), family))
    assert list(found) == NAMES
    assert all(one.ok for one in found.values()), found
    assert "differ by 0 of" in found["injection"].found


@pytest.mark.parametrize("family", ["rwkv", "recurrent_gemma"])
def test_a_model_may_forget_a_soft_token_before_the_next_one(family):
    found = proofs(FrozenModel(tiny_network(family), golden_tokenizer(), family))
    assert all(one.ok for one in found.values()), found


@pytest.fixture
def model():
    return FrozenModel(tiny_network("llama"), golden_tokenizer(), "llama")


def failed(model):
    return [name for name, one in proofs(model).items() if not one.ok]


def test_a_soft_token_that_does_not_go_in_is_found(model, monkeypatch):
    @contextmanager
    def nothing(*_arguments):
        yield

    monkeypatch.setattr(proof, "injected", nothing)
    assert failed(model) == ["soft token"]


def test_an_injection_that_changes_more_than_it_should_is_found(model):
    """An embedding that is not the same function twice, as one with dropout left on would be."""
    model.embedding.register_forward_hook(lambda _m, _a, out: out + torch.rand_like(out))
    assert "injection" in failed(model)


def test_a_prefix_of_other_tokens_is_found(model, monkeypatch):
    monkeypatch.setattr(
        proof, "SharedPrefix", lambda model, ids: SharedPrefix(model, [i + 1 for i in ids])
    )
    assert failed(model) == ["shared prefix"]


def test_a_doubled_begin_token_is_found(model):
    model.tokenizer.chat_template = (
        "{{ bos_token }}{{ bos_token }}{% for m in messages %}{{ m['content'] }}{% endfor %}"
    )
    prompt = SoftPrompt.for_tokenizer(golden_tokenizer()).bind(golden_tokenizer())
    (first, *_) = prove(model, prompt)
    assert not first.ok
    assert "exactly one is expected" in first.found


def test_weights_that_overflow_are_named(model):
    model.network.lm_head.weight.data.fill_(torch.inf)
    assert "NaN or infinity" in proofs(model)["injection"].found
