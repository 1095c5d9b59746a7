"""The files of examples/scale, run as far as one machine goes: with the variables that SLURM or
SkyPilot would set."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from selfie_adapters.config import load_config
from selfie_adapters.files.json_lines import read_jsonl

ROOT = Path(__file__).parents[1]
SCALE = ROOT / "examples/scale"


@pytest.fixture
def start(tmp_path, golden_dir):
    """Start a shell command in the repository; CONFIG is a small run on the sample data."""
    config = tmp_path / "run.yaml"
    config.write_text(
        f"""
model: {{name: {golden_dir / "model"}, dtype: float32, device_map: cpu}}
data: {{labels_file: {ROOT / "data/sample/sample.json"}, batch_size: 8}}
training: {{max_steps: 3, val_fraction: 0.2, checkpoint_dir: {tmp_path}}}
"""
    )

    def start(command: list[str], **variables: object) -> subprocess.Popen[str]:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        mine = {key: str(value) for key, value in variables.items()}
        return subprocess.Popen(
            command,
            env={**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", "CONFIG": str(config), **mine},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return start


def finish(process: subprocess.Popen[str]) -> str:
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    return said


def steps(run: Path) -> list[int]:
    return [row["step"] for row in read_jsonl(run / "metrics.jsonl") if row["event"] == "step"]


@pytest.mark.slow
def test_the_slurm_array_trains_its_task_and_goes_on_when_requeued(start, tmp_path):
    script = ["sh", str(SCALE / "slurm_array.sh")]
    finish(start(script, SLURM_ARRAY_TASK_ID=3, RUNS=tmp_path))
    run = tmp_path / "full_rank-seed1"
    config = load_config(run / "config.yaml")
    assert (config.seed, config.projection.type) == (1, "full_rank")
    assert "resumes after step 3 of 3" in finish(
        start(script, SLURM_ARRAY_TASK_ID=3, RUNS=tmp_path)
    )
    assert steps(run) == [1, 2, 3]


@pytest.mark.slow
def test_the_skypilot_commands_train_on_two_nodes_and_go_on_after_preemption(start, tmp_path):
    task = yaml.safe_load((SCALE / "skypilot.yaml").read_text(encoding="utf-8"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for said in ("run folder", "resumes after step 3 of 3"):
        nodes = [
            start(
                ["sh", "-c", task["run"]],
                SKYPILOT_NODE_IPS="127.0.0.1\n127.0.0.1",
                SKYPILOT_NUM_NODES=task["num_nodes"],
                SKYPILOT_NODE_RANK=rank,
                SKYPILOT_NUM_GPUS_PER_NODE=1,
                NAME=task["envs"]["NAME"],
                RUNS=tmp_path,
                PORT=port,
            )
            for rank in range(task["num_nodes"])
        ]
        assert said in "".join(finish(node) for node in nodes)
    assert steps(tmp_path / "skypilot") == [1, 2, 3]
