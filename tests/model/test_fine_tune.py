"""A LoRA merged next to its base: the fine-tune is what peft computes, the base stays."""

from __future__ import annotations

import dataclasses
import importlib.util
import logging

import pytest
import torch

from selfie_adapters.errors import MissingExtraError, ModelError
from selfie_adapters.model import load_model, with_lora
from selfie_adapters.model.fingerprint import weights_digest
from selfie_adapters.model.lora import find_lora
from tiny_folders import save_family
from tiny_lora import save_lora

_IDS = torch.tensor([[256, 97, 98, 99]])
needs_peft = pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="extra peft")


@pytest.fixture
def base(tmp_path):
    return save_family(tmp_path / "base")


def _load(name):
    return load_model(name, dtype="float32", device_map="cpu")


def _logits(model):
    return model.network(_IDS).logits


@needs_peft
@pytest.mark.parametrize(
    "options", [{}, {"target_modules": ["q_proj", "lm_head"]}, {"bias": "all", "r": 1}]
)
def test_the_fine_tune_is_the_merged_model_and_the_base_stays(options, base, tmp_path):
    lora = save_lora(tmp_path / "lora", base, **options)
    model = _load(base)
    before, digest = _logits(model), weights_digest(model)
    tuned = with_lora(model, lora)
    expected = _logits(_load(lora))  # loaded and merged by the road that `--model LORA` takes
    assert not torch.allclose(expected, before, atol=1e-2)
    torch.testing.assert_close(_logits(tuned), expected, rtol=0, atol=0)
    torch.testing.assert_close(_logits(model), before, rtol=0, atol=0)
    assert weights_digest(model) == digest
    assert weights_digest(tuned) != digest
    assert tuned.adapter == str(lora)
    assert str(lora) in tuned.name


@needs_peft
def test_only_matrices_that_change_take_memory(base, tmp_path):
    model = _load(base)
    tuned = with_lora(model, save_lora(tmp_path / "lora", base))
    mine = {name: weight.data_ptr() for name, weight in model.network.named_parameters()}
    theirs = {name: weight.data_ptr() for name, weight in tuned.network.named_parameters()}
    assert mine.keys() == theirs.keys()
    own = {name for name in mine if mine[name] != theirs[name]}
    assert {n for n in own if "norm" not in n} == {n for n in mine if "q_proj.weight" in n}


@needs_peft
def test_tied_embeddings_stay_tied(tmp_path):
    base = save_family(tmp_path / "base", "gemma2")
    tuned = with_lora(_load(base), save_lora(tmp_path / "lora", base, target_modules=["lm_head"]))
    modules = dict(tuned.network.named_modules())
    assert modules["model.embed_tokens"].weight is modules["lm_head"].weight


@needs_peft
def test_a_lora_of_another_base_is_named(base, tmp_path, caplog):
    lora = save_lora(tmp_path / "lora", base, "someone/other-model")
    with caplog.at_level(logging.WARNING):
        with_lora(_load(base), lora)
    assert "states the base someone/other-model is merged into" in caplog.text
    caplog.clear()
    with_lora(_load(base), save_lora(tmp_path / "second", base, "elsewhere/base"))
    demo = dataclasses.replace(_load(base), name="demo")
    named = "HuggingFaceTB/SmolLM2-135M-Instruct"
    with_lora(demo, save_lora(tmp_path / "third", base, named))
    assert not caplog.text


@needs_peft
def test_a_lora_of_another_shape_is_refused(base, tmp_path):
    wide = save_family(tmp_path / "wide", intermediate_size=48)
    lora = save_lora(tmp_path / "lora", wide, target_modules=["up_proj"])
    with pytest.raises(ModelError, match="does not fit its base"):
        with_lora(_load(base), lora)


@needs_peft
def test_a_tokenizer_with_other_tokens_is_refused(base, tmp_path):
    lora = save_lora(tmp_path / "lora", base)
    tokenizer = _load(base).tokenizer
    tokenizer.add_tokens(["<new>"])
    tokenizer.save_pretrained(lora)
    with pytest.raises(ModelError, match="its tokenizer has other tokens"):
        with_lora(_load(base), lora)


@needs_peft
def test_the_chat_template_is_that_of_the_fine_tune(base, tmp_path):
    lora = save_lora(tmp_path / "lora", base)
    tokenizer = _load(base).tokenizer
    tokenizer.chat_template = "{{ messages[0].content }}!"
    tokenizer.save_pretrained(lora)
    assert with_lora(_load(base), lora).tokenizer.chat_template == "{{ messages[0].content }}!"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.mkdir(), r"no adapter_config\.json in this folder"),
        (lambda path: path.write_text("{}"), "a file. Give the folder of the LoRA"),
        (lambda _path: None, "no such folder"),
    ],
)
def test_what_is_no_lora_is_refused_at_once(make, message, tmp_path, monkeypatch):
    monkeypatch.setattr("selfie_adapters.extras.is_installed", lambda _module: True)
    make(tmp_path / "lora")
    with pytest.raises(ModelError, match=message):
        find_lora(str(tmp_path / "lora"))


def test_without_peft_it_is_refused_at_once(monkeypatch):
    monkeypatch.setattr("selfie_adapters.extras.is_installed", lambda _module: False)
    with pytest.raises(MissingExtraError, match=r"selfie-adapters\[peft"):
        find_lora("owner/lora")
