"""The evaluation of this project on SmolLM2-135M, one command per step, as tables.

    python scripts/reproduce.py                      # under an hour on two cores
    python scripts/reproduce.py --quick              # the same way with little of everything
    python scripts/reproduce.py --full               # at full length, for a GPU
    python scripts/reproduce.py --only bridge        # the steps whose names begin so

Each step is a command of `selfie`, printed before it runs; a step whose result is there is not run
again, and one that was killed resumes. Writes tables.md and figure.png next to a folder per step.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from reproduce_figure import draw_figure
from reproduce_sizes import SIZES, Size
from reproduce_steps import TOPICS, Step, all_steps, write_topics
from reproduce_tables import OMITTED, write_tables

from selfie_adapters.errors import ConfigError, SelfieError, nearest
from selfie_adapters.evaluation.base import protocol_names
from selfie_adapters.evaluation.folder import versions
from selfie_adapters.files import write_json


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("reproduce"))
    parser.add_argument(
        "--only", action="append", default=[], help="run the steps whose names begin with this"
    )
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--quick", action="store_true", help="little of everything: proves nothing")
    sizes.add_argument("--full", action="store_true", help="at full length, for a GPU")
    given = parser.parse_args(arguments)
    name = "quick" if given.quick else "full" if given.full else "standard"
    try:
        failed = run_steps(given.out, SIZES[name], given.only)
        files = write_tables(given.out, name), draw_figure(given.out)
    except SelfieError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    _say("\n".join(f"written: {file}" for file in files if file is not None))
    for step, status in failed.items():
        sys.stderr.write(f"{step} ended with status {status}; run again to resume.\n")
    return 1 if failed else 0


def run_steps(folder: Path, size: Size, only: Sequence[str] = ()) -> dict[str, int]:
    """Run the steps that are not done; returns those that failed, with their status.

    A step that fails does not stop the others; where it only makes what others need, these are
    omitted, which tables.md states. Raises ConfigError for a name that no step begins
    with.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / TOPICS).exists():
        write_topics(folder, size)
    names, found = [], False
    failed: dict[str, int] = {}
    omitted: dict[str, list[str]] = {}
    for step in all_steps(folder, size, protocol_names()):
        names.append(step.name)
        wanted = not only or any(step.name.startswith(start) for start in only)
        found |= wanted
        if not wanted:
            continue
        try:
            _run(folder, step)
        except subprocess.CalledProcessError as error:
            if step.needed_for:
                _say(f"omitted without it: {', '.join(step.needed_for)}")
                omitted[step.shown] = list(step.needed_for)
            else:
                failed[step.name] = error.returncode
    if not found:
        raise ConfigError(f"--only {' '.join(only)}: no such step. {nearest(only[0], names)}")
    write_json(folder / OMITTED, omitted)
    return failed


def _run(folder: Path, step: Step) -> None:
    if step.makes.exists():
        _say(f"{step.name}: done already")
        return
    resumed = bool(step.resume) and step.begun is not None and step.begun.exists()
    command = step.resume if resumed else step.command
    _say(f"\n{step.name}\n$ {step.as_typed(command)}")
    started, spent = time.perf_counter(), _processor_seconds()
    env = {"HF_HUB_OFFLINE": "1", **os.environ}
    program = [step.script] if step.script else ["-m", "selfie_adapters"]
    subprocess.run([sys.executable, *program, *command], check=True, env=env)
    # A step that was killed counts the time of its last run only.
    spent = _processor_seconds() - spent
    _record(folder, step, time.perf_counter() - started, spent, resumed)


def _processor_seconds() -> float:
    """Processor time of all steps so far, which other work on the machine hardly changes."""
    times = os.times()
    return times.children_user + times.children_system


def _record(folder: Path, step: Step, seconds: float, spent: float, resumed: bool) -> None:
    """Keep what each step ran as, how long, and where: steps may be run on different days."""
    path = folder / "steps.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    known[step.name] = {
        "command": step.shown,
        "makes": str(step.makes.relative_to(folder)),
        "title": step.title,
        "seconds": round(seconds),
        "processor_seconds": round(spent),
        "resumed": resumed,
        "machine": machine(),
        "versions": versions(),
    }
    write_json(path, known)


def machine() -> str:
    """The processor or GPU, and the threads."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{_processor()}, {torch.get_num_threads()} threads"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
