from __future__ import annotations

from pathlib import Path

import pytest
import torch

from selfie_adapters.adapters import load_adapter
from selfie_adapters.commands.train import train
from selfie_adapters.dataset import load_dataset
from selfie_adapters.errors import ConfigError, DataError
from selfie_adapters.files import read_jsonl
from selfie_adapters.model import load_model
from selfie_adapters.training import label_losses
from selfie_adapters.training.loop import bound_prompt

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
    from selfie_adapters.config import load_config

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
        (["model.load_in_8bit=true"], ConfigError, "load_in_8bit"),
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
