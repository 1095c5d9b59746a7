"""What is named wrongly is an error at once: no model is loaded, no hub is asked."""

from __future__ import annotations

import huggingface_hub
import pytest
import torch

import selfie_adapters.model
from selfie_adapters.adapters import create_adapter
from selfie_adapters.cli import main

_TRAIN = "model: {{name: {model}}}\ndata: {{labels_file: {vectors}}}\n"
_BRIDGE = "model: {model}\nadapter: {adapter}\n"


@pytest.fixture
def named(tmp_path, monkeypatch):
    """Files that exist, beside which one is named wrongly; and nothing may be loaded or fetched."""

    def refuse(*args, **options):
        raise AssertionError("loaded or fetched")

    # Who imports it first, so that none of them keeps the refusal.
    for place in (
        "evaluation.base",
        "evaluation.detection.protocol",
        "labelling.worker",
        "training.setup",
        "model.loading",
        "model",
    ):
        monkeypatch.setattr(f"selfie_adapters.{place}.load_model", refuse)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    monkeypatch.setattr("transformers.utils.hub.hf_hub_download", refuse)
    monkeypatch.chdir(tmp_path)
    assert selfie_adapters.model.load_model is refuse
    create_adapter("scalar_affine", 32).save("runs/first/adapter.safetensors")
    torch.save(torch.randn(2, 32), "vectors.pt")
    (tmp_path / "mean.safetensors").write_bytes(b"")
    (tmp_path / "topics.jsonl").write_text('{"name": "owl"}\n')
    return {
        "model": "owner/model",
        "adapter": "runs/first/adapter.safetensors",
        "vectors": "vectors.pt",
        "topics": "topics.jsonl",
    }


def _commands(named):
    model, adapter = ("--model", named["model"]), ("--adapter", named["adapter"])
    out = ("--out", "out")
    return {
        "label": ["label", named["vectors"], *model, *adapter, *out],
        "confidence": ["confidence", "fit", named["vectors"], *model, *adapter],
        "read": ["read", "a text", *model, *adapter, *out],
        "serve": ["serve", *model, *adapter, "--port", "0"],
        "topics": ["prepare", "topics", named["topics"], *model, "--layers", "0", *out],
        "train": ["train", "--config", "train.yaml"],
        "eval": ["eval", "bridge", "--config", "bridge.yaml", *out],
    }


def _refused(command, named, options, capsys, tmp_path):
    (tmp_path / "train.yaml").write_text(_TRAIN.format(**named))
    (tmp_path / "bridge.yaml").write_text(_BRIDGE.format(**named))
    with pytest.raises(SystemExit) as ended:
        main([*_commands(named)[command], *options])
    assert ended.value.code == 1
    return capsys.readouterr().err.replace("\n", " ")


ALL = ("label", "confidence", "read", "serve", "topics", "train", "eval")


@pytest.mark.parametrize("command", [*ALL, "demo"])
def test_a_device_that_is_not_there(command, named, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    if command == "demo":
        with pytest.raises(SystemExit):
            main(["demo", "--device", "cuda:3"])
        error = capsys.readouterr().err.replace("\n", " ")
    else:
        error = _refused(command, named, ["--device", "cuda:3"], capsys, tmp_path)
    assert 'device "cuda:3" is not available. This machine has: cpu.' in error


@pytest.mark.parametrize("command", ALL)
def test_a_model_path_that_is_not_there(command, named, capsys, tmp_path):
    named = {**named, "model": "runs/frist"}
    error = _refused(command, named, [], capsys, tmp_path)
    assert "runs/frist: no such model folder or file. Nearby: first." in error


@pytest.mark.parametrize("command", ["label", "confidence", "read", "serve", "eval"])
@pytest.mark.parametrize("path", ["runs/first/adaptor.safetensors", "runs/frist/adapter.pt"])
def test_an_adapter_path_that_is_not_there(path, command, named, capsys, tmp_path):
    error = _refused(command, {**named, "adapter": path}, [], capsys, tmp_path)
    assert f"{path}: no such file." in error
    assert "Nearby: " in error


@pytest.mark.parametrize("command", ["label", "read", "serve"])
def test_a_mean_file_that_is_not_there(command, named, capsys, tmp_path):
    error = _refused(command, named, ["--mean", "maen.safetensors"], capsys, tmp_path)
    assert "maen.safetensors: no such file. Nearby: mean.safetensors." in error


@pytest.mark.parametrize("command", ["label", "read"])
def test_a_confidence_file_that_is_not_there(command, named, capsys, tmp_path):
    error = _refused(command, named, ["--confidence", "c.json"], capsys, tmp_path)
    assert "c.json: no such file." in error


def test_a_topics_file_that_is_not_there_is_no_data_set_of_the_hub(named, capsys, tmp_path):
    for path in ("runs/topics", "some/topics.jsonl"):
        error = _refused("topics", {**named, "topics": path}, [], capsys, tmp_path)
        assert f"{path}: no such file." in error
