"""An evaluation as a process of its own, killed by force and started again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path


def check_kill(folder: Path, protocol: str, config: Path, files: Sequence[str]) -> None:
    """Killed after its first rows, it goes on to the same `files` as when left alone."""

    def start(out: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "selfie_adapters", "eval", protocol]
        return subprocess.Popen(
            [*command, "--config", str(config), "--out", out],
            cwd=folder,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
        )

    process = start("killed")
    rows = folder / "killed/rows.jsonl"
    while process.poll() is None and not (rows.exists() and rows.stat().st_size):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (folder / "killed/results.json").exists()
    assert start("killed").wait() == 0
    assert start("whole").wait() == 0
    for name in files:
        assert (folder / "killed" / name).read_bytes() == (folder / "whole" / name).read_bytes()
