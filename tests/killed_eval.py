"""An evaluation as a process of its own, killed by force and started again."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import loaded_process


def check_kill(folder: Path, protocol: str, config: Path, files: Sequence[str]) -> None:
    """Killed after its first rows, it goes on to the same `files` as when left alone."""

    def start(out: str) -> ForkServerProcess:
        command = ["-m", "selfie_adapters", "eval", protocol, "--config", config, "--out", out]
        return loaded_process.start(command, folder, err=folder / "err.txt")

    def finish(process: ForkServerProcess) -> None:
        process.join(300)
        assert process.exitcode == 0, (folder / "err.txt").read_text()

    process = start("killed")
    rows = folder / "killed/rows.jsonl"
    while process.exitcode is None and not (rows.exists() and rows.stat().st_size):
        time.sleep(0.005)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not (folder / "killed/results.json").exists()
    finish(start("killed"))
    finish(start("whole"))
    for name in files:
        assert (folder / "killed" / name).read_bytes() == (folder / "whole" / name).read_bytes()
