"""The evaluation of this project on SmolLM2-135M, one command per step, as tables.

    python scripts/reproduce.py                      # under an hour on two cores
    python scripts/reproduce.py --quick              # the same way with little of everything
    python scripts/reproduce.py --full               # at full length, for a GPU
    python scripts/reproduce.py --only bridge        # the steps whose names begin so

Each step is a command of `selfie`, printed before it runs; a step whose result is there is not run
again, and one that was killed resumes. On a CPU two steps run side by side, each with half of the
cores. Writes tables.md and figure.png next to a folder per step.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from reproduce_figure import draw_figure
from reproduce_plan import stages, write_topics
from reproduce_sizes import SIZES, Size
from reproduce_steps import TOPICS, Step
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
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped; run again to resume."))
    try:
        failed = run_steps(given.out, SIZES[name], given.only)
        files = write_tables(given.out, name), draw_figure(given.out)
    except SelfieError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("stopped; run again to resume.\n")
        return 130
    finally:
        signal.signal(signal.SIGTERM, before)
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
    names: list[str] = []
    failed: dict[str, int] = {}
    omitted: dict[str, list[str]] = {}
    runner = Runner(folder)
    for stage in stages(folder, size, protocol_names()):
        numbered = dict(enumerate(stage, len(names) + 1))
        names += [step.name for step in stage]
        wanted = {
            number: step
            for number, step in numbered.items()
            if not only or any(step.name.startswith(start) for start in only)
        }
        for step, status in runner.run(wanted.items()):
            if not status:
                continue
            if step.needed_for:
                _say(f"omitted without it: {', '.join(step.needed_for)}")
                omitted[step.shown] = list(step.needed_for)
            else:
                failed[step.name] = status
    if only and not any(name.startswith(start) for name in names for start in only):
        raise ConfigError(f"--only {' '.join(only)}: no such step. {nearest(only[0], names)}")
    write_json(folder / OMITTED, omitted)
    return failed


class Runner:
    """Runs steps as processes: on a CPU two at a time, as one alone does not keep two cores busy,
    on a GPU one after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        cores = os.cpu_count() or 1
        self.at_once = 1 if cores == 1 or torch.cuda.is_available() else 2
        threads = str(cores // self.at_once)
        self.environment = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": threads, **os.environ}
        self._writing = threading.Lock()
        self._running: set[subprocess.Popen[str]] = set()

    def run(self, steps: Iterable[tuple[int, Step]]) -> list[tuple[Step, int]]:
        """Run numbered steps; returns them with their exit status, 0 for those done before."""
        with ThreadPoolExecutor(self.at_once) as pool:
            try:
                return list(pool.map(lambda numbered: self._run(*numbered), steps))
            except BaseException as error:
                pool.shutdown(wait=False, cancel_futures=True)
                if not isinstance(error, KeyboardInterrupt):  # which they get from the terminal
                    for process in [*self._running]:
                        process.terminate()
                raise

    def _run(self, number: int, step: Step) -> tuple[Step, int]:
        if step.makes.exists():
            _say(f"[{number}] {step.name}: done already")
            return step, 0
        resumed = bool(step.resume) and step.begun is not None and step.begun.exists()
        command = step.resume if resumed else step.command
        _say(f"[{number}] {step.name}\n[{number}] $ {step.as_typed(command)}")
        program = [step.script] if step.script else ["-m", "selfie_adapters"]
        started = time.time()
        status, spent = self._process([sys.executable, *program, *command], f"[{number}] ")
        # A step that was killed counts the time of its last run only.
        seconds = time.time() - started
        _say(f"[{number}] {step.name}: {f'status {status}' if status else 'done'}, {seconds:.0f} s")
        if not status:
            times = {
                "started": round(started),
                "seconds": round(seconds),
                "processor_seconds": round(spent),
            }
            self._record(number, step, resumed, times)
        return step, status

    def _process(self, command: Sequence[str], mark: str) -> tuple[int, float]:
        """Run a command, its lines after `mark`; returns its exit status and processor seconds."""
        process = subprocess.Popen(
            command,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        self._running.add(process)
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                _say(f"{mark}{line.rstrip()}")
        _pid, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        self._running.remove(process)
        return process.returncode, usage.ru_utime + usage.ru_stime

    def _record(self, number: int, step: Step, resumed: bool, times: dict[str, int]) -> None:
        """Keep what each step ran as, how long, and where: steps may be run on different days."""
        path = self.folder / "steps.json"
        with self._writing:
            known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
            known[step.name] = {
                "number": number,
                "command": step.shown,
                "makes": str(step.makes.relative_to(self.folder)),
                "title": step.title,
                **times,
                "at_once": self.at_once,
                "resumed": resumed,
                "machine": machine(self.environment["OMP_NUM_THREADS"]),
                "versions": versions(),
            }
            write_json(path, known)


def machine(threads: str) -> str:
    """The processor or GPU, and the threads of a step."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{_processor()}, {threads} thread{'' if threads == '1' else 's'}"


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
