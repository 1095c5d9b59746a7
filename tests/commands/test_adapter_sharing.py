"""`selfie adapter push` and `pull` against a hub on loopback."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from safetensors.torch import save_file

from hub_server import hub_server, use_hub
from selfie_adapters.adapters import TrainingRecord, create_adapter, load_adapter
from selfie_adapters.cli import main
from selfie_adapters.commands.adapter_sharing import pull, push
from selfie_adapters.errors import (
    AdapterError,
    ConfigError,
    DataError,
    MissingFileError,
    UploadError,
)
from selfie_adapters.files import sha256
from selfie_adapters.labelling.confidence import Confidence
from selfie_adapters.report.evaluation_figures import evaluation_figures

CONFIG = {
    "seed": 7,
    "model": {"name": "meta-llama/Llama-3.1-8B-Instruct"},
    "data": {"labels_file": "/home/somebody/labels.json"},
    "training": {"learning_rate": 0.01},
}


@pytest.fixture(autouse=True)
def wide_output(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def run(tmp_path):
    """A training run's folder: its best adapter with a specialist, means, and calibration."""
    folder = tmp_path / "run"
    adapter = create_adapter("scalar_affine", 6, init_scale=4.0)
    adapter.reset_parameters()
    adapter.record = TrainingRecord(CONFIG, 30, 1.5)
    adapter.save(folder / "adapter_best.safetensors")
    adapter.save(folder / "adapter_best.layer_2_at_name.safetensors")
    adapter.save(folder / "adapter_final.safetensors")
    save_file({"layer_2": torch.ones(6)}, folder / "adapter_best.mean.safetensors")
    Confidence({"gain": 1.0}, 0.5, 0.3).save(folder / "adapter_best.confidence.json")
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    metrics = [{"event": "step", "step": 1, "loss": 3.0}]
    metrics += [{"event": "validation", "step": 20, "val_loss": 1.25}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in metrics))
    return folder


def interval(mean):
    return {"mean": mean, "low": mean - 0.1, "high": mean + 0.1, "n": 40}


def loss_results(adapter_file, name="mine", **changed):
    losses = {"trained": interval(1.2), "zero": interval(3.0), "shuffled": interval(3.5)}
    cell = {"adapter": name, "dataset": "owls", "vectors": 40, "examples": 80, "loss": losses}
    other = {**cell, "adapter": "other", "loss": {"trained": interval(9.0)}}
    return {
        "protocol": "loss",
        "settings": {"split": "test", "adapters": {name: "x", "other": "y"}},
        "inputs": {f"adapter {name}": sha256(adapter_file), "adapter other": "0" * 64},
        "cells": [other, cell],
        **changed,
    }


def write_results(folder, content):
    folder.mkdir(exist_ok=True)
    (folder / "results.json").write_text(json.dumps(content))
    return folder


def test_a_dry_run_shows_files_and_card_and_sends_nothing(run, tmp_path, monkeypatch, capsys):
    with hub_server(tmp_path / "hub") as (address, requests):
        use_hub(monkeypatch, address, tmp_path / "cache")
        push(str(run), "owner/my-adapter")
    assert requests == []
    shown = capsys.readouterr().out
    for name in ("README.md", "adapter.safetensors", "adapter.layer_2_at_name.safetensors"):
        assert f"{name}  " in shown
    assert "adapter.mean.safetensors  " in shown
    assert "adapter.confidence.json  " in shown
    assert "/home/somebody" not in shown
    assert "base_model: meta-llama/Llama-3.1-8B-Instruct" in shown
    assert "1.2500 at step 20" in shown
    assert "Nothing was sent. With --upload" in shown


def test_what_is_uploaded_is_what_comes_back(run, tmp_path, monkeypatch, capsys):
    (tmp_path / "hub").mkdir()
    write_results(run / "loss", loss_results(run / "adapter_best.safetensors"))
    with hub_server(tmp_path / "hub", token="hf_secret") as (address, _):
        use_hub(monkeypatch, address, tmp_path / "cache")
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        push(str(run), "owner/my-adapter", upload=True)
        assert "owner/my-adapter/commit/" in capsys.readouterr().out
        push(str(run), "owner/my-adapter", upload=True)  # the repository is there already
        pull("owner/my-adapter", out=str(tmp_path / "pulled"))
        with pytest.raises(ConfigError, match="--overwrite"):
            pull("owner/my-adapter", out=str(tmp_path / "pulled"))
    own = {
        "adapter.safetensors": "adapter_best.safetensors",
        "adapter.layer_2_at_name.safetensors": "adapter_best.layer_2_at_name.safetensors",
        "adapter.mean.safetensors": "adapter_best.mean.safetensors",
        "adapter.confidence.json": "adapter_best.confidence.json",
    }
    pulled = tmp_path / "pulled"
    assert {path.name for path in pulled.iterdir()} == {*own, "README.md"}
    for name, source in own.items():
        mine, theirs = (run / source).read_bytes(), (pulled / name).read_bytes()
        if name in ("adapter.safetensors", "adapter.layer_2_at_name.safetensors"):
            assert b"/home/somebody/labels.json" in mine  # and nothing else is changed
            mine = mine.replace(b"/home/somebody/labels.json", b"labels.json")
            mine, theirs = (of[8:].replace(b" ", b"") for of in (mine, theirs))
        assert theirs == mine
    assert list(load_adapter(pulled).specialists) == [(2, "name")]
    # As the hub's own library reads the card:
    card = ModelCard((pulled / "README.md").read_text(encoding="utf-8"))
    data = card.data.to_dict()
    assert data["base_model"] == "meta-llama/Llama-3.1-8B-Instruct"
    assert data["library_name"] == "selfie-adapters"
    assert "scalar-affine" in data["tags"]
    (result,) = data["model-index"][0]["results"]
    assert result["dataset"] == {"name": "owls", "type": "owls", "split": "test"}
    assert [(one["name"], one["value"]) for one in result["metrics"]] == [
        ("loss (nats per token), this adapter", 1.2),
        ("loss (nats per token), zero", 3.0),
        ("loss (nats per token), shuffled", 3.5),
    ]
    assert "| **this adapter** | 1.200 [1.100, 1.300] |" in card.text


def test_an_upload_that_is_refused_is_one_line(run, tmp_path, monkeypatch, capsys):
    (tmp_path / "hub").mkdir()
    with hub_server(tmp_path / "hub", token="hf_secret") as (address, _):
        use_hub(monkeypatch, address, tmp_path / "cache")
        monkeypatch.setenv("HF_TOKEN", "hf_wrong")
        with pytest.raises(UploadError, match=r"owner/mine: cannot be uploaded.*hf auth login"):
            push(str(run), "owner/mine", upload=True)
        with pytest.raises(SystemExit) as ended:
            main(["adapter", "push", str(run), "owner/mine", "--upload"])
    assert ended.value.code == 1
    assert capsys.readouterr().err.count("\nerror:") <= 1
    assert not list((tmp_path / "hub").iterdir())
    with pytest.raises(UploadError, match="owner/mine"):  # the server is gone
        push(str(run), "owner/mine", upload=True)


def test_a_pt_adapter_is_shared_in_the_published_safetensors_format(run, tmp_path, monkeypatch):
    load_adapter(run / "adapter_final.safetensors").save(tmp_path / "alone/mine.pt")
    (tmp_path / "hub").mkdir()
    with hub_server(tmp_path / "hub") as (address, _):
        use_hub(monkeypatch, address, tmp_path / "cache")
        push(str(tmp_path / "alone/mine.pt"), "owner/mine", upload=True)
        again = load_adapter("owner/mine")
    assert again.scale() == pytest.approx(4.0)
    assert again.record.config["seed"] == 7
    files = {path.name for path in (tmp_path / "hub/owner/mine").iterdir()}
    assert files == {"README.md", "adapter.safetensors"}


def test_names_and_files_that_do_not_fit_are_refused(run, tmp_path):
    with pytest.raises(ConfigError, match="owner/name, is expected"):
        push(str(run), "just-a-name")
    with pytest.raises(ConfigError, match="owner/name, is expected"):
        pull("https://huggingface.co/owner/name", out=str(tmp_path / "x"))
    with pytest.raises(MissingFileError):
        push(str(run), "owner/name", mean=str(tmp_path / "missing.safetensors"))
    torch.save(torch.ones(6), tmp_path / "mean.pt")
    with pytest.raises(ConfigError, match=r"mean\.pt: means are shared as \.safetensors"):
        push(str(run), "owner/name", mean=str(tmp_path / "mean.pt"))
    with pytest.raises(DataError, match=r"mean\.safetensors: UTF-16"):
        push(str(run), "owner/name", confidence=str(run / "adapter_best.mean.safetensors"))
    for name in ("adapter_best.safetensors", "adapter_final.safetensors"):
        (run / name).unlink()
    with pytest.raises(AdapterError, match="this run has neither"):
        push(str(run), "owner/name")


def test_figures_are_of_this_adapter_or_refused(run, tmp_path):
    file = run / "adapter_best.safetensors"
    mine = write_results(tmp_path / "e", loss_results(file))
    figures = evaluation_figures(mine, file)
    assert [(one.condition, one.value) for one in figures] == [
        ("this adapter", 1.2),
        ("zero", 3.0),
        ("shuffled", 3.5),
    ]
    torch.manual_seed(0)
    changed = create_adapter("scalar_affine", 6, init_scale=2.0).save(tmp_path / "o.safetensors")
    with pytest.raises(ConfigError, match="of other adapters"):
        evaluation_figures(mine, changed)
    bridge = write_results(tmp_path / "b", loss_results(file, protocol="bridge"))
    with pytest.raises(ConfigError, match="'bridge' are not put on a card"):
        evaluation_figures(bridge, file)
    with pytest.raises(MissingFileError):
        evaluation_figures(tmp_path, file)


@pytest.mark.parametrize(
    "change",
    [
        {"cells": None},
        {"cells": [3]},
        {"cells": [{"adapter": "mine"}]},
        {"settings": []},
        {"inputs": 5},
        {"protocol": ["loss"]},
        {"cells": [{"adapter": "mine", "dataset": 1, "vectors": 2, "loss": {"zero": {}}}]},
        {
            "protocol": "retrieval",
            "settings": {"vectors": "v", "adapters": {"mine": "x"}, "labels": {}},
            "counts": {"topics": float("inf")},
            "conditions": [{"condition": "mine", "queries": 8, "recall_at": {}}],
        },
    ],
)
def test_results_of_another_shape_are_named(change, run, tmp_path):
    file = run / "adapter_best.safetensors"
    broken = write_results(tmp_path / "e", loss_results(file, **change))
    with pytest.raises(DataError, match=r"results\.json: not the results of an evaluation"):
        evaluation_figures(broken, file)


def test_figures_that_are_no_numbers_are_named(run, tmp_path):
    file = run / "adapter_best.safetensors"
    for value in ("1.2", True, float("nan"), None, [1.0]):
        results = loss_results(file)
        results["cells"][1]["loss"]["zero"]["mean"] = value
        with pytest.raises(DataError, match=r"results\.json"):
            evaluation_figures(write_results(tmp_path / "e", results), file)


def test_strings_from_outside_stay_inside_their_cell(run, tmp_path, capsys):
    adapter = load_adapter(run / "adapter_best.safetensors")
    adapter.record = dataclasses.replace(
        adapter.record, config={"seed": "1 | <script>\n# Title", "model": {"name": "a/b\nx: y"}}
    )
    adapter.save(tmp_path / "x/hostile.safetensors")
    push(str(tmp_path / "x/hostile.safetensors"), "owner/mine")
    shown = capsys.readouterr().out
    assert "\n# Title" not in shown
    assert "<script>" not in shown
    assert "base_model" not in shown
