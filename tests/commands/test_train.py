from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest
import torch

from selfie_adapters.adapters import create_adapter, load_adapter
from selfie_adapters.commands.train import train
from selfie_adapters.config import load_config
from selfie_adapters.dataset import load_dataset
from selfie_adapters.errors import ConfigError, DataError
from selfie_adapters.files.json_lines import read_jsonl
from selfie_adapters.model import load_model
from selfie_adapters.training import label_losses
from selfie_adapters.training.setup import bound_prompt

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "data/sample/sample.json"


@pytest.fixture
def run(golden_dir, tmp_path):
    """Run the command with a shipped configuration on the golden model and the sample data."""

    def run(name: str, *changes: str, overwrite: bool = False, **options: object) -> Path:
        settings = [
            f"model.name={golden_dir / 'model'}",
            "model.dtype=float32",
            f"data.labels_file={SAMPLE}",
            f"training.checkpoint_dir={tmp_path}",
            "training.max_steps=3",
            *changes,
        ]
        config = str(ROOT / f"training/configs/{name}.yaml")
        train(config=config, set_=settings, overwrite=overwrite, **options)
        return tmp_path / name

    return run


def test_a_shipped_configuration_trains(run, capsys):
    folder = run("scalar_affine_8b_goodfire", "data.batch_size=4")
    steps = [r for r in read_jsonl(folder / "metrics.jsonl") if r["event"] == "step"]
    # 36 training vectors with two labels each: 72 examples; 4 per batch, 4 batches per step
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
    "smollm2_reading": ["soft_prompt.template=null", "soft_prompt.reserved_token=null"],
    "smollm2_sae": [
        "soft_prompt.template=null",
        "soft_prompt.reserved_token=null",
        "data.train_dataset_ratios=null",
        "training.resume_from_checkpoint=null",
    ],
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
        ({}, "requires --config FILE or options"),
        ({"config": "a.yaml", "resume": "runs/a"}, "takes its configuration from the folder"),
        ({"resume": "runs/a", "set_": ["seed=1"]}, "takes its configuration from the folder"),
        ({"resume": "runs/a", "overwrite": True}, "takes its configuration from the folder"),
        ({"config": "a.yaml", "json": True}, "--json needs --eval-only"),
    ],
)
def test_options_that_do_not_go_together(options, message):
    with pytest.raises(ConfigError, match=message):
        train(**options)


def test_without_a_file_the_options_are_the_configuration(run, golden_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = {"model": str(golden_dir / "model"), "labels_file": str(SAMPLE), "dtype": "float32"}
    train(**options, max_steps=1, batch_size=4, experiment_name="mine", adapter_kind="scale_only")
    written = load_config("runs/mine/config.yaml")
    assert (written.training.max_steps, written.data.batch_size) == (1, 4)
    assert written.projection.type == "scale_only"
    with pytest.raises(ConfigError, match=r"--labels-file: missing"):
        train(model="demo")


def test_a_commented_configuration_reads_back_to_the_same_settings(tmp_path, capsys):
    options = {"model": "some/model", "labels_file": "x.json", "learning_rate": 0.25, "seed": 7}
    train(**options, train_dataset_ratios=["a=1", "b@l1=2"], init_config=str(tmp_path / "c.yaml"))
    found = load_config(tmp_path / "c.yaml")
    assert (found.model.name, found.seed, found.training.learning_rate) == ("some/model", 7, 0.25)
    assert [(one.datasets, one.ratio) for one in found.data.train_dataset_ratios or []] == [
        ("a", 1.0), ("b@l1", 2.0),
    ]  # fmt: skip
    capsys.readouterr()
    train(config=str(tmp_path / "c.yaml"), init_config="-")
    assert capsys.readouterr().out == (tmp_path / "c.yaml").read_text()
    with pytest.raises(ConfigError, match="overwrite"):
        train(**options, init_config=str(tmp_path / "c.yaml"))
    train(init_config=str(tmp_path / "new.yaml"))
    assert load_config(tmp_path / "new.yaml").model.name == "demo"


def test_an_option_replaces_the_value_of_the_file(run):
    folder = run("scalar_affine_8b_goodfire", "data.batch_size=4", seed=11)
    assert load_config(folder / "config.yaml").seed == 11


def test_a_resumed_run_is_the_one_in_the_folder(run, tmp_path, capsys):
    folder = run("scalar_affine_8b_goodfire", "data.batch_size=4")
    moved = tmp_path / "elsewhere"
    folder.rename(moved)
    train(resume=str(moved))
    assert not folder.exists()
    assert "resumes after step 3 of 3" in capsys.readouterr().out


# Every key of a published training file, with the values of its defaults where they matter little.
PUBLISHED = """
experiment_name: {kind}_run
seed: 42
model:
  name: "{model}"
  device_map: null
  dtype: float32
  enable_gradient_checkpointing: false
  load_in_8bit: false
data:
  labels_file: "{labels}"
  batch_size: 16
  shuffle: true
  num_workers: 2
  strip_labels: false
  eos_token: null
  train_dataset_ratios: {train_ratios}
  val_dataset_ratios: {val_ratios}
  resample_each_epoch: true
  debug_dataset_mixing: false
projection:
  type: {kind}
  normalize_input: true
  init_scale: 3.0
  low_rank_rank: 4
  low_rank_init_factor: 0.01
soft_prompt:
  template: null
  reserved_token: "<|reserved_special_token_0|>"
training:
  learning_rate: {rate}
  scale_learning_rate: {scale_rate}
  direction_learning_rate: {direction_rate}
  bias_learning_rate: null
  optimizer_type: {optimizer}
  weight_decay: 0.01
  momentum: 0.9
  num_epochs: 1
  max_steps: 3
  gradient_accumulation_steps: 1
  gradient_clip_norm: 0.5
  label_smoothing: 0.0
  max_loss: 100.0
  scheduler_type: cosine
  warmup_steps: 0
  validation_every_n_steps: 2
  val_fraction: 1.0
  checkpoint_every_n_steps: 100
  checkpoint_dir: "{out}"
  save_final_checkpoint: true
  resume_from_checkpoint: null
logging:
  use_mlflow: false
  mlflow_tracking_uri: null
  mlflow_experiment_name: null
  use_wandb: false
  wandb_project: null
  wandb_entity: null
  wandb_run_name: null
  log_every_n_steps: 1
  log_sample_generations: false
  log_generations_every_n_steps: 100
  log_singular_values_every_n_steps: 50
"""


@pytest.fixture
def published(golden_dir, tmp_path):
    """Train with a file in the published form; keys given are changed."""

    def published(**changes: object) -> Path:
        values = {
            "kind": "scalar_affine_plus_low_rank",
            "model": golden_dir / "model",
            "labels": SAMPLE,
            "train_ratios": "null",
            "val_ratios": "null",
            "rate": 0.01,
            "scale_rate": "null",
            "direction_rate": "null",
            "optimizer": "adamw",
            "out": tmp_path / "runs",
        } | changes
        file = tmp_path / "published.yaml"
        file.write_text(PUBLISHED.format(**values))
        train(config=str(file))
        return tmp_path / "runs" / f"{values['kind']}_run"

    return published


def moved(folder: Path) -> dict[str, bool]:
    """Which parameters are no longer at their initial values; random ones are not at 0."""
    config = load_config(folder / "config.yaml")
    adapter = load_adapter(folder / "adapter_final.safetensors")
    torch.manual_seed(0)
    start = create_adapter(
        config.projection.type,
        adapter.dim,
        init_scale=3.0,
        low_rank_rank=adapter.low_rank_rank,
        seed=config.seed,
    ).state_dict()
    return {name: not torch.equal(t, start[name]) for name, t in adapter.state_dict().items()}


def events(folder: Path) -> list[str]:
    return [row["event"] for row in read_jsonl(folder / "metrics.jsonl")]


def test_a_published_baseline_with_a_rate_of_zero_is_measured(published):
    folder = published(kind="identity", rate="0.0")
    assert events(folder) == ["validation"]


@pytest.mark.parametrize("optimizer", ["adamw", "sgd_momentum"])
def test_with_all_rates_zero_training_runs_and_nothing_moves(published, optimizer):
    folder = published(kind="scalar_affine", rate="0.0", optimizer=optimizer)
    assert events(folder).count("step") == 3
    rows = [row for row in read_jsonl(folder / "metrics.jsonl") if row["event"] == "validation"]
    assert len(rows) >= 2
    assert len({row["val_loss"] for row in rows}) == 1
    assert not any(moved(folder).values())


def test_a_rate_of_zero_freezes_one_group(published):
    folder = published(kind="scalar_affine", scale_rate="0.0")
    assert moved(folder) == {"log_scale": False, "bias": True}
    folder = published(scale_rate="0.0", direction_rate="0")
    state = load_adapter(folder / "adapter_final.safetensors").state_dict()
    first = load_adapter(folder / "adapter_best.safetensors").state_dict()
    assert torch.equal(state["U"], first["U"])
    assert state["log_scale"].item() == pytest.approx(math.log(3.0))
    assert state["bias"].norm() > 0


def test_published_ratios_may_be_a_mapping(published):
    folder = published(
        kind="scalar_affine",
        train_ratios="{everyday@l1: 1, everyday@l2: 0.5}",
        val_ratios="{everyday: 1}",
    )
    config = load_config(folder / "config.yaml").data
    assert [(r.datasets, r.ratio) for r in config.train_dataset_ratios] == [
        ("everyday@l1", 1.0),
        ("everyday@l2", 0.5),
    ]
    assert [(r.datasets, r.ratio) for r in config.val_dataset_ratios] == [("everyday", 1.0)]
    seen = [r["examples"] for r in read_jsonl(folder / "metrics.jsonl") if r["event"] == "step"]
    # 18 vectors with two labels in each layer: all 36 examples of layer 1, 18 of layer 2
    assert sum(seen) == 48  # three steps of 16


def test_a_ratio_that_is_no_number_is_named(published):
    with pytest.raises(ConfigError, match=r"train_dataset_ratios\.0\.ratio"):
        published(kind="scalar_affine", train_ratios="{everyday: much}")
