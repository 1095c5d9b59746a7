from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from selfie_adapters.adapters import load_adapter
from selfie_adapters.commands.train import train
from selfie_adapters.config import load_config
from selfie_adapters.dataset import load_dataset
from selfie_adapters.errors import ConfigError, DataError
from selfie_adapters.files import read_jsonl
from selfie_adapters.model import load_model
from selfie_adapters.training import label_losses
from selfie_adapters.training.setup import bound_prompt

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "data/sample/sample.json"


@pytest.fixture
def run(golden_dir, tmp_path):
    """Run the command with a shipped configuration on the golden model and the sample data."""

    def run(name: str, *changes: str, overwrite: bool = False) -> Path:
        settings = [
            f"model.name={golden_dir / 'model'}",
            "model.dtype=float32",
            f"data.labels_file={SAMPLE}",
            f"training.checkpoint_dir={tmp_path}",
            "training.max_steps=3",
            *changes,
        ]
        config = str(ROOT / f"training/configs/{name}.yaml")
        train(config=config, set_=settings, overwrite=overwrite)
        return tmp_path / name

    return run


def test_a_shipped_configuration_trains(run, capsys):
    folder = run("scalar_affine_8b_goodfire", "data.batch_size=4")
    steps = [r for r in read_jsonl(folder / "metrics.jsonl") if r["event"] == "step"]
    # 36 training vectors with two labels each: 72 examples; 4 a batch, 4 batches a step
    assert [row["examples"] for row in steps] == [16, 16, 16]
    assert all(len(row["batch_losses"]) == 4 for row in steps)
    assert load_adapter(folder / "adapter_final.safetensors").kind == "scalar_affine"
    assert f"run folder: {folder}" in capsys.readouterr().out.replace("\n", "")


def test_the_low_rank_configuration_trains(run):
    folder = run("scalar_plus_low_rank_8b", "projection.low_rank_rank=4")
    adapter = load_adapter(folder / "adapter_best.safetensors")
    assert adapter.num_parameters() == 1 + 48 + 2 * 48 * 4


def test_the_baseline_is_measured_and_not_trained(run, golden_dir):
    folder = run("identity_baseline")
    rows = read_jsonl(folder / "metrics.jsonl")
    assert [row["event"] for row in rows] == ["validation"]
    # the unit vector itself is the soft token
    model = load_model(golden_dir / "model", "float32")
    dataset = load_dataset(SAMPLE)
    val = dataset.examples("val")
    vectors = dataset.gather(val.section, val.row)
    adapter = load_adapter(folder / "adapter_final.safetensors")
    assert torch.allclose(adapter.transform(vectors), vectors / vectors.norm(dim=1, keepdim=True))
    prompt = bound_prompt(load_config(folder / "config.yaml"), model).prompt
    losses = label_losses(model, prompt, adapter, vectors, val.labels)
    assert rows[0]["val_loss"] == pytest.approx(float(losses.mean()), rel=1e-5)


def test_a_run_is_not_replaced_by_accident(run):
    run("identity_baseline")
    with pytest.raises(ConfigError, match="--overwrite"):
        run("identity_baseline")
    run("identity_baseline", overwrite=True)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (["training.resume_from_checkpoint=no.pt"], FileNotFoundError, "no.pt"),
        (["data.labels_file=nowhere.json"], FileNotFoundError, "nowhere.json"),
        (["soft_prompt.reserved_token=ab"], ValueError, "one is needed"),
        (
            ["data.train_dataset_ratios=[{datasets: elsewhere, ratio: 1}]"],
            DataError,
            "elsewhere",
        ),
    ],
)
def test_what_cannot_start_leaves_no_folder(changes, error, message, run, tmp_path):
    with pytest.raises(error, match=message):
        run("scalar_affine_8b_goodfire", *changes)
    assert list(tmp_path.iterdir()) == []


CONFIGS = sorted(path.stem for path in (ROOT / "training/configs").glob("*.yaml"))
# What only fits the model or the data that a configuration names.
OWN = {
    "llamascope_layers_8b": ["data.train_dataset_ratios=null"],
    "smollm2_topics": ["soft_prompt.template=null", "soft_prompt.reserved_token=null"],
    "smollm2_sae": ["soft_prompt.template=null", "soft_prompt.reserved_token=null"],
    "gemma_2_9b_gemma_scope": ["model.load_in_8bit=false"],
    "qwen_2_5_7b": ["data.eos_token=null"],
}


@pytest.mark.parametrize("name", CONFIGS)
def test_every_shipped_configuration_trains_once_model_and_data_are_there(name, run):
    small = [
        "data.batch_size=4",
        "training.val_fraction=1.0",
        "training.gradient_accumulation_steps=1",
    ]
    rank = load_config(ROOT / f"training/configs/{name}.yaml").projection.low_rank_rank
    small += ["projection.low_rank_rank=4"] if rank else []
    folder = run(name, *small, *OWN.get(name, []))
    rows = read_jsonl(folder / "metrics.jsonl")
    assert rows[-1]["event"] == "validation"
    assert {"trained", "zero", "shuffled", "identity"} == set(rows[-1]["controls"])


def test_the_loss_curve_is_drawn_where_it_can_be(run, monkeypatch, capsys):
    folder = run("scalar_affine_8b_goodfire", "data.batch_size=4")
    assert (folder / "loss_curve.png").read_bytes().startswith(b"\x89PNG")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    capsys.readouterr()
    folder = run("scalar_affine_8b_goodfire", "data.batch_size=4", overwrite=True)
    assert "no loss curve: " in capsys.readouterr().out
    assert (folder / "adapter_final.safetensors").exists()


def test_eval_only_prints_what_the_run_had_at_its_best(run, capsys):
    folder = run("scalar_affine_8b_goodfire", "data.batch_size=4")
    capsys.readouterr()
    train(resume=str(folder), eval_only=True, json=True)
    found = json.loads(capsys.readouterr().out)
    rows = [r for r in read_jsonl(folder / "metrics.jsonl") if r["event"] == "validation"]
    assert found["val_loss"] == pytest.approx(min(row["val_loss"] for row in rows), rel=1e-6)
    train(resume=str(folder), eval_only=True)
    assert "zero" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "wants one of --config FILE"),
        ({"config": "a.yaml", "resume": "runs/a"}, "wants one of --config FILE"),
        ({"resume": "runs/a", "set_": ["seed=1"]}, "takes its configuration from the folder"),
        ({"resume": "runs/a", "overwrite": True}, "takes its configuration from the folder"),
        ({"config": "a.yaml", "json": True}, "--json goes with --eval-only"),
    ],
)
def test_options_that_do_not_go_together(options, message):
    with pytest.raises(ConfigError, match=message):
        train(**options)


def test_a_resumed_run_is_the_one_in_the_folder(run, tmp_path, capsys):
    folder = run("scalar_affine_8b_goodfire", "data.batch_size=4")
    moved = tmp_path / "elsewhere"
    folder.rename(moved)
    train(resume=str(moved))
    assert not folder.exists()
    assert "goes on after step 3 of 3" in capsys.readouterr().out
