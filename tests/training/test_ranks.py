"""Several processes train the adapter that one does: real processes, over gloo."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from selfie_adapters.adapters import load_adapter
from selfie_adapters.errors import ConfigError
from selfie_adapters.files.json_lines import read_jsonl
from selfie_adapters.training.ranks import Ranks, joined_ranks

ROOT = Path(__file__).parents[2]
TORCHRUN = Path(sys.executable).with_name("torchrun")


def test_shares_cover_every_row_once_however_many_processes():
    rows = torch.arange(7)
    for size in (1, 2, 3, 9):
        shares = [Ranks(rank, size).share(rows) for rank in range(size)]
        assert sorted(torch.cat(shares).tolist()) == list(range(7))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_one_process_adds_nothing_up():
    value = torch.tensor([1.0, 2.0])
    Ranks().add_up([value])
    Ranks().agree_on(step=3)
    assert value.tolist() == [1.0, 2.0]


@pytest.mark.parametrize("device_map", ["auto", "balanced", {"model": 0, "lm_head": 1}, "cuda:0"])
def test_a_model_over_several_devices_is_refused_for_several_processes(monkeypatch, device_map):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=r"device_map: null.*start a single process"):
        joined_ranks(device_map).__enter__()


@pytest.fixture
def config(tmp_path, golden_dir):
    file = tmp_path / "run.yaml"
    # 72 examples in batches of 5: the last batch of an epoch has two, its last step three batches
    file.write_text(
        f"""
model: {{name: {golden_dir / "model"}, dtype: float32, device_map: cpu}}
data: {{labels_file: {ROOT / "data/sample/sample.json"}, batch_size: 5}}
projection: {{type: scalar_affine_plus_low_rank, low_rank_rank: 3, init_scale: 2.0}}
training:
  gradient_accumulation_steps: 3
  num_epochs: 3
  validation_every_n_steps: 6
  checkpoint_every_n_steps: 4
  checkpoint_dir: {tmp_path}
"""
    )
    return file


def start(tmp_path, *arguments, launcher=(), script=("-m", "selfie_adapters"), **environment):
    return subprocess.Popen(
        [*(launcher or [sys.executable]), *script, "train", *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def two(*more):
    return [TORCHRUN, "--nproc-per-node", "2", *more]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def finish(process, code=0):
    said, _ = process.communicate(timeout=300)
    assert process.returncode == code, said
    return said


def assert_same_numbers(one, other):
    """Losses within 1e-5, and the adapters they end with."""
    rows = [
        [row for row in read_jsonl(run / "metrics.jsonl") if row["event"] != "resume"]
        for run in (one, other)
    ]
    assert len(rows[0]) == len(rows[1])
    for a, b in zip(*rows, strict=True):
        assert (a["event"], a["step"]) == (b["event"], b["step"])
        if a["event"] == "step":
            assert a["batch_losses"] == pytest.approx(b["batch_losses"], abs=1e-5)
            assert (a["examples"], a["target_tokens"]) == (b["examples"], b["target_tokens"])
        if a["event"] == "validation":
            assert a["val_loss"] == pytest.approx(b["val_loss"], abs=1e-5)
            assert a["controls"] == pytest.approx(b["controls"], abs=1e-5)
    finals = [load_adapter(run / "adapter_final.safetensors") for run in (one, other)]
    for name, parameter in finals[0].named_parameters():
        torch.testing.assert_close(
            parameter, dict(finals[1].named_parameters())[name], atol=2e-4, rtol=0
        )


@pytest.mark.slow
def test_two_processes_give_the_losses_of_one(config, tmp_path):
    finish(start(tmp_path, "--config", config, "--set", "experiment_name=one"))
    said = finish(start(tmp_path, "--config", config, launcher=two()))
    assert_same_numbers(tmp_path / "one", tmp_path / "run")
    assert said.count("run folder:") == 1  # one of them speaks and writes


@pytest.mark.slow
def test_two_launchers_as_on_two_hosts_give_the_losses_of_one(config, tmp_path):
    finish(start(tmp_path, "--config", config, "--set", "experiment_name=one"))
    port = free_port()
    hosts = [
        start(
            tmp_path,
            "--config",
            config,
            launcher=[
                TORCHRUN,
                *("--nnodes", "2", "--node-rank", str(rank), "--nproc-per-node", "1"),
                *("--master-addr", "127.0.0.1", "--master-port", str(port)),
            ],
        )
        for rank in range(2)
    ]
    for host in hosts:
        finish(host)
    assert_same_numbers(tmp_path / "one", tmp_path / "run")


@pytest.mark.slow
def test_two_processes_stopped_by_a_signal_go_on_in_one(config, tmp_path):
    """The share of each process is no part of the state: another number of them may go on."""
    finish(start(tmp_path, "--config", config, "--set", "experiment_name=one"))
    process = start(tmp_path, "--config", config, launcher=two())
    metrics = tmp_path / "run/metrics.jsonl"
    while not metrics.exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)  # torchrun hands it on to its processes
    said, _ = process.communicate(timeout=300)
    assert process.returncode != 0
    assert f"selfie train --resume {tmp_path / 'run'}" in said
    steps = [row["step"] for row in read_jsonl(metrics) if row["event"] == "step"]
    checkpoint = max((tmp_path / "run/checkpoints").glob("step_*"))
    assert checkpoint.stem == f"step_{steps[-1]:08d}"
    finish(start(tmp_path, "--resume", tmp_path / "run"))
    assert_same_numbers(tmp_path / "one", tmp_path / "run")


DYING = """
import os, signal, sys
from selfie_adapters.training import loop
from selfie_adapters.errors import TrainingError
from selfie_adapters.cli import main

original, calls = loop.backward, []

def dying(*arguments):
    calls.append(1)
    if os.environ["RANK"] == "1" and len(calls) == 6:
        if os.environ["HOW"] == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        raise TrainingError("the second one has had enough")
    return original(*arguments)

loop.backward = dying
main(sys.argv[1:])
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("error", "another process did: process 1: the second one has had enough"),
        ("killed", "another process of this run is gone without a word"),
    ],
)
def test_a_process_that_dies_stops_the_others_with_its_message(config, tmp_path, how, message):
    script = tmp_path / "dying.py"
    script.write_text(DYING)
    process = start(tmp_path, "--config", config, launcher=two(), script=[script], HOW=how)
    said, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    assert message in said.replace("\n", " ")
    # five steps were made; what the first process saved is whole and goes on
    finish(start(tmp_path, "--resume", tmp_path / "run"))
    finish(start(tmp_path, "--config", config, "--set", "experiment_name=one"))
    assert_same_numbers(tmp_path / "one", tmp_path / "run")


@pytest.mark.slow
def test_processes_with_different_data_do_not_train(config, tmp_path):
    """As when a file was copied to one host and changed on the other."""
    other = tmp_path / "other"
    shutil.copytree(ROOT / "data/sample", other)
    document = json.loads((other / "sample.json").read_text())
    item = next(item for item in document[0]["vectors"] if item["split"] == "train")
    item["labels"][0] += "!"
    (other / "sample.json").write_text(json.dumps(document))
    script = tmp_path / "apart.py"
    script.write_text(
        "import os, sys\n"
        "from selfie_adapters.cli import main\n"
        "other = ['--set', 'data.labels_file=other/sample.json']\n"
        "main([*sys.argv[1:], *(other if os.environ['RANK'] == '1' else [])])\n"
    )
    process = start(tmp_path, "--config", config, launcher=two(), script=[script])
    said, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "All processes need the same configuration, data and checkpoints" in said.replace(
        "\n", " "
    )
    assert not (tmp_path / "run").exists()
