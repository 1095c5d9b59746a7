"""The vLLM engine and the runs it is used in, with transformers in vLLM's place."""

from __future__ import annotations

import json
import os
import shutil
from itertools import chain

import pytest
import torch

import fake_vllm
from selfie_adapters.adapters import load_adapter
from selfie_adapters.commands.label import label
from selfie_adapters.errors import BindingError, ConfigError, LabellingError, ModelError
from selfie_adapters.files.json_lines import read_jsonl
from selfie_adapters.labelling import Labeller
from selfie_adapters.labelling.engines.vllm import VllmEngine
from selfie_adapters.model import load_model


@pytest.fixture
def llm(monkeypatch):
    for name in [name for name in os.environ if name.startswith("VLLM_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "WARNING")
    before = dict(os.environ)
    yield fake_vllm.install(monkeypatch)
    for name in set(os.environ) - set(before):
        del os.environ[name]


@pytest.fixture
def adapter_file(golden_dir):
    return golden_dir / "adapters/scalar_affine_norm.safetensors"


@pytest.fixture
def vectors(golden_dir):
    return golden_dir / "vectors.safetensors"


@pytest.fixture
def model_folder(golden_dir, tmp_path):
    shutil.copytree(golden_dir / "model", tmp_path / "model")
    return tmp_path / "model"


def labeller(folder, adapter_file):
    model = load_model(folder, "float32", embedding_only=True)
    return Labeller(model, load_adapter(adapter_file), engine=VllmEngine)


def test_it_sets_its_environment_and_leaves_what_the_user_set(llm, model_folder, adapter_file):
    labeller(model_folder, adapter_file)
    assert os.environ["VLLM_WORKER_MULTIPROC_METHOD"] == "spawn"
    assert os.environ["VLLM_LOGGING_LEVEL"] == "WARNING"


def test_labels_and_scores_are_those_of_the_local_engine(llm, model_folder, adapter_file):
    vectors = torch.randn(6, 48, generator=torch.Generator().manual_seed(1))
    local = Labeller(load_model(model_folder, "float32", "cpu"), load_adapter(adapter_file))
    other = labeller(model_folder, adapter_file)
    expected = local.label(vectors, (1.0, 3.0), max_new_tokens=7)
    found = other.label(vectors, (1.0, 3.0), max_new_tokens=7)
    for one, two in zip(chain(*expected), chain(*found), strict=True):
        assert (two.ids, two.ended, two.text) == (one.ids, one.ended, one.text)
        assert two.log_prob == pytest.approx(one.log_prob, abs=1e-4)
        assert two.zero_log_prob == pytest.approx(one.zero_log_prob, abs=1e-4)
    labels = [first for first, _ in expected]
    assert [one.log_prob for one in other.rescore(labels, vectors.flip(0))] == pytest.approx(
        [one.log_prob for one in local.rescore(labels, vectors.flip(0))], abs=1e-4
    )
    assert llm.alive == 1
    other.close()
    other.close()
    assert llm.alive == 0


def test_an_architecture_whose_embeddings_it_scales_is_refused(
    llm, model_folder, adapter_file, monkeypatch
):
    monkeypatch.setattr(llm, "scale", 2.0)
    with pytest.raises(ModelError, match=r"reads the prompt's embeddings in another way.*local"):
        labeller(model_folder, adapter_file)
    assert llm.alive == 0


def test_a_model_that_it_cannot_load_is_one_line(llm, model_folder, adapter_file, monkeypatch):
    def refuse(*_args, **_options):
        raise ValueError("1 validation error\n  head size 8 is not supported")

    monkeypatch.setattr(llm, "__init__", refuse)
    with pytest.raises(ModelError, match=r"vLLM cannot load it \(1 validation error head size 8"):
        labeller(model_folder, adapter_file)


def test_another_device_is_refused(llm, model_folder, adapter_file):
    other = labeller(model_folder, adapter_file)
    with pytest.raises(ConfigError, match="device is cuda:1; the installed vLLM runs on cpu only"):
        VllmEngine(other.model, other.prompt, device="cuda:1")


@pytest.fixture
def run(tmp_path, model_folder, adapter_file, vectors):
    def run(out="labels", **options):
        settings = {
            "model": str(model_folder),
            "adapter": str(adapter_file),
            "dtype": "float32",
            "max_new_tokens": 6,
            "batch_size": 3,
            **options,
        }
        label(str(vectors), out=str(tmp_path / out), **settings)
        return read_jsonl(tmp_path / out / "labels-00000.jsonl")

    return run


def test_the_command_never_loads_the_network(llm, run, tmp_path, monkeypatch):
    expected = run("local", engine="local")
    loaded = []

    def load(*args, **options):
        loaded.append(load_model(*args, **options))
        return loaded[-1]

    monkeypatch.setattr("selfie_adapters.labelling.worker.load_model", load)
    found = run(engine="vllm")
    (model,) = loaded
    table = next(model.embedding.parameters())
    assert all(weight.is_meta for weight in model.network.parameters() if weight is not table)
    assert [row["label"] for row in found] == [row["label"] for row in expected]
    assert llm.alive == 0
    binding = json.loads((tmp_path / "labels/binding.json").read_text())
    assert (binding["fingerprint"], binding["fingerprint_checked"]) == ([], None)
    settings = json.loads((tmp_path / "labels/config.json").read_text())["settings"]
    assert settings["engine"] == "vllm"


def test_an_engine_that_fails_ends_the_run_and_it_resumes(llm, run, monkeypatch, tmp_path):
    whole = run("whole", engine="vllm")
    monkeypatch.setattr(llm, "fail_at", 6)  # inside the shard
    with pytest.raises(LabellingError, match=r"vLLM failed: EngineCore encountered an issue\. Fin"):
        run(engine="vllm")
    assert llm.alive == 0
    part = tmp_path / "labels/labels-00000.jsonl.part"
    assert 0 < len(part.read_text().splitlines()) < len(whole)
    monkeypatch.setattr(llm, "fail_at", None)
    assert run(engine="vllm") == whole


def test_changed_weights_are_noticed_when_a_run_resumes(llm, run, monkeypatch, model_folder):
    from safetensors.torch import load_file, save_file

    monkeypatch.setattr(llm, "fail_at", 6)
    with pytest.raises(LabellingError):
        run(engine="vllm")
    monkeypatch.setattr(llm, "fail_at", None)
    file = model_folder / "model.safetensors"
    weights = load_file(file)
    weights["model.layers.1.mlp.up_proj.weight"][0, 0] += 1e-6
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(ConfigError, match=r"the weights of .* have changed"):
        run(engine="vllm")


def test_an_adapter_of_a_model_with_another_name_is_refused_without_a_fingerprint(
    llm, run, model_folder, adapter_file, tmp_path
):
    adapter = load_adapter(adapter_file)
    local = Labeller(load_model(model_folder, "float32", "cpu"), adapter)
    adapter.binding = local.binding
    bound = tmp_path / "bound.safetensors"
    adapter.save(bound)
    run("same", engine="vllm", adapter=str(bound))
    binding = json.loads((tmp_path / "same/binding.json").read_text())
    assert binding["fingerprint_checked"] is False
    moved = model_folder.rename(tmp_path / "moved")
    with pytest.raises(BindingError, match=r"model: .*no forward fingerprint was computed"):
        run("other", engine="vllm", adapter=str(bound), model=str(moved))
    assert run("other", engine="local", adapter=str(bound), model=str(moved))
