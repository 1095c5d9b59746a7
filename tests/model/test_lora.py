"""LoRA adapters on a base model: merged, or refused, never passed over."""

from __future__ import annotations

import importlib.util
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from selfie_adapters.errors import MissingExtraError, ModelError
from selfie_adapters.model import load_model
from selfie_adapters.model.loading import load_tokenizer
from tiny_folders import save_family

_IDS = torch.tensor([[256, 97, 98]])
_RANK, _ALPHA = 2, 6
needs_peft = pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="extra peft")


@pytest.fixture
def base(tmp_path):
    return save_family(tmp_path / "base")


def _lora(folder, base_name, **changes):
    """A LoRA on every q_proj, in the file format of peft, written by hand."""
    folder.mkdir(exist_ok=True)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_name,
        "target_modules": ["q_proj"],
        "r": _RANK,
        "lora_alpha": _ALPHA,
        **changes,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for layer in range(3):
        name = f"base_model.model.model.layers.{layer}.self_attn.q_proj"
        weights[f"{name}.lora_A.weight"] = torch.randn(_RANK, 32, generator=generator)
        weights[f"{name}.lora_B.weight"] = torch.randn(32, _RANK, generator=generator)
    save_file(weights, folder / "adapter_model.safetensors")
    return folder


def _expected(base, lora):
    """The base's logits with W + alpha / r · B A in place of W."""
    network = load_model(base, dtype="float32", device_map="cpu").network
    weights = load_file(lora / "adapter_model.safetensors")
    for layer in range(3):
        name = f"base_model.model.model.layers.{layer}.self_attn.q_proj"
        q_proj = network.model.layers[layer].self_attn.q_proj
        change = weights[f"{name}.lora_B.weight"] @ weights[f"{name}.lora_A.weight"]
        q_proj.weight += _ALPHA / _RANK * change
    return network(_IDS).logits


def _load(name):
    return load_model(name, dtype="float32", device_map="cpu")


@needs_peft
@pytest.mark.parametrize("named", ["absolute", "relative"])
def test_a_lora_is_merged_into_its_base(named, base, tmp_path):
    lora = _lora(tmp_path / "lora", str(base) if named == "absolute" else "../base")
    model = _load(lora)
    torch.testing.assert_close(model.network(_IDS).logits, _expected(base, lora))
    assert model.adapter == str(lora)
    assert str(lora) in model.name
    assert "base" in model.name
    assert not any("lora" in name for name, _ in model.network.named_modules())
    assert not any(weight.requires_grad for weight in model.network.parameters())


@needs_peft
def test_a_lora_beside_its_base_is_merged_once(base, tmp_path):
    plain = shutil.copytree(base, tmp_path / "plain")
    _lora(base, "some/other-base")
    model = _load(base)
    torch.testing.assert_close(model.network(_IDS).logits, _expected(plain, base))
    assert model.adapter == str(base)


@needs_peft
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: dict(list(w.items())[2:]), r"2 weights are missing, 0 are unexpected"),
        (lambda w: {**w, "base_model.model.x.lora_A.weight": torch.ones(2)}, "1 are unexpected"),
        (lambda w: {k: v[..., :1].contiguous() for k, v in w.items()}, "does not fit its base"),
    ],
)
def test_a_lora_that_does_not_fit_its_base_is_refused(change, message, base, tmp_path):
    lora = _lora(tmp_path / "lora", str(base))
    file = lora / "adapter_model.safetensors"
    save_file(change(load_file(file)), file)
    with pytest.raises(ModelError, match=message):
        _load(lora)


@needs_peft
def test_a_base_with_lost_weights_is_refused_under_a_lora_too(base, tmp_path):
    lora = _lora(tmp_path / "lora", str(base))
    file = base / "model.safetensors"
    weights = {k: v for k, v in load_file(file).items() if "layers.1.mlp" not in k}
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match="3 weights are missing"):
        _load(lora)


@needs_peft
def test_a_lora_is_not_merged_into_quantized_weights(base, tmp_path):
    with pytest.raises(ModelError, match="merged into dense weights"):
        load_model(_lora(tmp_path / "lora", str(base)), quantize="4bit")


@pytest.mark.parametrize("beside", [True, False])
def test_without_peft_a_lora_is_never_passed_over(beside, base, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "peft" else find(name, *a)
    )
    lora = _lora(base if beside else tmp_path / "lora", str(base))
    with pytest.raises(MissingExtraError, match=r"a LoRA on .*pip install 'selfie-adapters\[peft"):
        _load(lora)
    assert load_tokenizer(lora).vocab_size  # needs no peft


@pytest.mark.parametrize(
    ("base_name", "message"),
    [
        (None, "base_model_name_or_path is None; a LoRA needs the name"),
        ("./gone/base", r"a LoRA on \./gone/base, which cannot be read: .*no such model folder"),
    ],
)
def test_a_lora_without_its_base_is_refused(base_name, message, tmp_path):
    with pytest.raises(ModelError, match=message):
        _load(_lora(tmp_path / "lora", base_name))


def test_a_lora_on_a_lora_is_refused(base, tmp_path):
    first = _lora(tmp_path / "first", str(base))
    with pytest.raises(ModelError, match="which is a LoRA itself. Merge it"):
        _load(_lora(tmp_path / "second", str(first)))
