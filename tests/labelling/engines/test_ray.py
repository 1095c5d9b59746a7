"""The Ray engine in processes of its own: its files are those of the local engine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import save_file

pytestmark = pytest.mark.slow
pytest.importorskip("ray", reason="needs the extra ray: make test-all installs it")


def start(out: Path, source: Path, golden_dir: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "selfie_adapters", "label", str(source)]
    command += ["--model", str(golden_dir / "model"), "--dtype", "float32", "--out", str(out)]
    command += ["--adapter", str(golden_dir / "adapters/scalar_affine_norm.safetensors")]
    command += ["--samples", "3", "--max-new-tokens", "20", "--shard-size", "8"]
    command += ["--batch-size", "6", *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_DISABLE_IMPORT_WARNING": "1"}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def files(folder: Path) -> dict[str, bytes]:
    names = ("labels-*", "config.json", "binding.json", "controls.json", "progress.json")
    return {p.name: p.read_bytes() for name in names for p in sorted(folder.glob(name))}


@pytest.fixture
def source(tmp_path):
    vectors = torch.randn(120, 48, generator=torch.Generator().manual_seed(1))
    save_file({"v": vectors}, tmp_path / "v.safetensors")
    return tmp_path / "v.safetensors"


def workers_of(driver: int) -> list[int]:
    """Process ids of the Ray actors under a driver, oldest first."""
    children = psutil.Process(driver).children(recursive=True)
    actors = [child for child in children if "MapWorker" in " ".join(child.cmdline())]
    return [actor.pid for actor in sorted(actors, key=lambda one: one.create_time())]


def test_two_actors_one_killed_in_the_middle_leave_the_files_of_the_local_engine(
    source, golden_dir, tmp_path
):
    local = start(tmp_path / "local", source, golden_dir)
    _, err = local.communicate(timeout=900)
    assert local.returncode == 0, err
    driver = start(tmp_path / "ray", source, golden_dir, "--engine", "ray", "--workers", "2")
    victim = None
    deadline = time.monotonic() + 600
    while victim is None and time.monotonic() < deadline and driver.poll() is None:
        working = len(list((tmp_path / "ray").glob("*.part")))
        complete = len(list((tmp_path / "ray").glob("labels-*.jsonl")))
        if working and 1 <= complete < 12:
            running = workers_of(driver.pid)
            if len(running) == 2:
                victim = running[0]
                os.kill(victim, signal.SIGKILL)
        time.sleep(0.02)
    assert victim is not None, "no actor was caught at work"
    out, err = driver.communicate(timeout=900)
    assert driver.returncode == 0, err
    assert "120 vectors labelled" in out
    assert files(tmp_path / "ray") == files(tmp_path / "local")


def test_an_error_in_an_actor_is_one_line_and_exit_1(source, golden_dir, tmp_path):
    save_file({"v": torch.ones(4, 47)}, source)
    driver = start(tmp_path / "ray", source, golden_dir, "--engine", "ray", "--workers", "1")
    _, err = driver.communicate(timeout=900)
    assert driver.returncode == 1
    assert "vectors of width 47" in err
    assert "Traceback" not in err
