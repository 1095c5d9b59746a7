"""Mirrors are views: real ones get the numbers, and broken ones cost a line and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from selfie_adapters.config import TrainConfig
from selfie_adapters.files.json_lines import read_jsonl
from selfie_adapters.training import mirrors, train
from selfie_adapters.training.mirrors import Mirror, MirrorThread
from toy_run import config_for, rows_of

ROOT = Path(__file__).parents[2]


class Recorder(Mirror):
    name = "recorder"

    def __init__(self, config: TrainConfig | None = None, run=None, run_id: str = ""):
        self.seen = []
        self.closed = False

    def open(self):
        pass

    def send(self, numbers, step):
        self.seen.append((step, numbers))

    def close(self):
        self.closed = True


def test_a_mirror_gets_every_number_by_its_path(data, model, monkeypatch):
    made = []

    class Kept(Recorder):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            made.append(self)

    monkeypatch.setattr(mirrors, "Wandb", Kept)
    run = train(config_for(data, logging={"use_wandb": True}), model)
    (mirror,) = made
    assert mirror.closed
    steps = [numbers for _, numbers in mirror.seen if "step/loss" in numbers]
    assert [numbers["step/loss"] for numbers in steps] == [
        row["loss"] for row in rows_of(run, "step")
    ]
    assert {"step/learning_rates/scale", "step/learning_rates/bias"} <= steps[0].keys()
    validations = [numbers for _, numbers in mirror.seen if "validation/val_loss" in numbers]
    assert [n["validation/controls/zero"] for n in validations] == [
        row["controls"]["zero"] for row in rows_of(run, "validation")
    ]


@pytest.mark.parametrize("place", ["open", "send", "close"])
def test_a_mirror_that_fails_costs_one_line_and_nothing_else(data, model, monkeypatch, place):
    class Broken(Recorder):
        pass

    def fail(*_arguments):
        raise SystemExit("the service is gone\nand says much about it")

    setattr(Broken, place, fail)
    monkeypatch.setattr(mirrors, "Mlflow", Broken)
    said = []
    monkeypatch.setattr(
        "selfie_adapters.training.tracking.Tracker.say", lambda _s, t: said.append(t)
    )
    run = train(config_for(data, logging={"use_mlflow": True}), model)
    warnings = [line for line in said if line.startswith("warning")]
    assert warnings == ["warning: recorder failed and is dropped from here on: the service is gone"]
    assert len(rows_of(run, "step")) == 12
    assert (run / "adapter_final.safetensors").exists()


def test_a_mirror_that_hangs_does_not_hold_training_up(monkeypatch):
    monkeypatch.setattr(mirrors, "_PATIENCE_SECONDS", 0.1)
    release = threading.Event()

    class Slow(Recorder):
        def open(self):
            release.wait(10)

    said = []
    started = time.perf_counter()
    mirror = MirrorThread(Slow(), said.append)
    for step in range(1000):
        mirror.send({"loss": 1.0}, step)
    mirror.close()
    assert time.perf_counter() - started < 2
    assert said == ["recorder: still busy after the end; left behind unfinished."]
    release.set()


def test_a_missing_package_is_one_line_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    said = []
    config = TrainConfig.model_validate({"model": {"name": "x"}, "data": {"labels_file": "x"}})
    mirror = MirrorThread(mirrors.Wandb(config, Path("run"), "id"), said.append)
    mirror.close()
    assert len(said) == 1
    assert "pip install 'selfie-adapters[track]'" in said[0]


# The real packages, each in a process of its own: they print, warn and leave threads behind.


def run_with(tmp_path, golden_dir, *settings, **environment):
    config = tmp_path / "run.yaml"
    config.write_text(
        f"""
model: {{name: {golden_dir / "model"}, dtype: float32, device_map: cpu}}
data: {{labels_file: {ROOT / "data/sample/sample.json"}, batch_size: 8}}
training:
  {{max_steps: 4, validation_every_n_steps: 2, val_fraction: 0.1, checkpoint_dir: {tmp_path}}}
"""
    )
    sets = [word for setting in settings for word in ("--set", setting)]
    done = subprocess.run(
        [sys.executable, "-m", "selfie_adapters", "train", "--config", str(config), *sets],
        env={**os.environ, "OMP_NUM_THREADS": "1", "HOME": str(tmp_path), **environment},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    losses = [r["loss"] for r in read_jsonl(tmp_path / "run/metrics.jsonl") if r["event"] == "step"]
    assert len(losses) == 4
    return losses, done.stdout + done.stderr


@pytest.mark.slow
def test_real_wandb_offline(tmp_path, golden_dir):
    pytest.importorskip("wandb")
    _, said = run_with(tmp_path, golden_dir, "logging.use_wandb=true", WANDB_MODE="offline")
    assert "warning" not in said
    (file,) = (tmp_path / "run/wandb").glob("offline-run-*/run-*.wandb")
    content = file.read_bytes()
    assert b"step/loss" in content
    assert b"validation/controls/zero" in content


@pytest.mark.slow
def test_real_mlflow_in_a_folder(tmp_path, golden_dir):
    pytest.importorskip("mlflow")
    losses, said = run_with(tmp_path, golden_dir, "logging.use_mlflow=true")
    assert "warning: mlflow" not in said
    (file,) = (tmp_path / "mlruns").rglob("metrics/step/loss")
    written = [line.split() for line in file.read_text().splitlines()]
    assert [(int(step), float(value)) for _, value, step in written] == [
        (number, pytest.approx(loss)) for number, loss in enumerate(losses, start=1)
    ]


@pytest.mark.slow
def test_real_trackio_on_this_machine(tmp_path, golden_dir):
    pytest.importorskip("trackio")
    losses, said = run_with(
        tmp_path, golden_dir, "logging.use_trackio=true", TRACKIO_DIR=str(tmp_path / "trackio")
    )
    assert "warning: trackio" not in said
    import sqlite3

    (file,) = (tmp_path / "trackio").rglob("*.db")
    with sqlite3.connect(file) as database:
        rows = [json.loads(row[0]) for row in database.execute("select metrics from metrics")]
    database.close()
    assert [row["step/loss"] for row in rows if "step/loss" in row] == pytest.approx(losses)


@pytest.mark.slow
def test_a_tracking_server_that_is_not_there_does_not_stop_training(tmp_path, golden_dir):
    pytest.importorskip("mlflow")
    _, said = run_with(
        tmp_path,
        golden_dir,
        "logging.use_mlflow=true",
        "logging.mlflow_tracking_uri=http://127.0.0.1:9",
    )
    assert said.count("warning: mlflow failed and is dropped from here on") == 1
