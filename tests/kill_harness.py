"""Kill a command at random moments, start it again until it is done, compare what it wrote.

Everything that a job imports is loaded once, in a process without threads; each attempt is a fork
of it, so that it starts in milliseconds and most kills hit the work instead of the imports.
`python tests/kill_harness.py kills JOB COUNT SEED` prints a JSON report. In place of `kills`,
`full` fills the disk and `signals` sends Ctrl-C, SIGTERM and SIGHUP. tests/test_kills.py runs all.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import random
import resource
import shlex
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_MOST_ATTEMPTS = 400  # of one life; more means that the job makes no progress


def _nothing(_folder: Path) -> None: ...


@dataclass(frozen=True)
class KillJob:
    """A command over files in a folder, all paths relative to it.

    command: arguments of `selfie`, given the state of the folder; results: what it writes, as
    name → comparable content; prepare: writes the inputs; patch: what an attempt changes in the
    program first; after_kill: what must hold at any moment, given the folder.
    """

    command: Callable[[Path], list[str]]
    results: Callable[[Path], dict[str, Any]]
    prepare: Callable[[Path], None]
    patch: Callable[[], None] = lambda: None
    after_kill: Callable[[Path], None] = _nothing
    server: Callable[[], Any] = nullcontext


def attempt(
    job: KillJob, folder: Path, after: float | None, room: int | None = None
) -> tuple[int, float]:
    """Run the command in a fork, killed `after` seconds; returns its exit status and its time.

    room: largest size of a file that it may write; writing more fails as on a full disk.
    """
    began = time.perf_counter()
    child = os.fork()
    if not child:
        _run(job, folder, room)
    if after is not None:
        deadline = began + after
        while time.perf_counter() < deadline:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status), time.perf_counter() - began
            time.sleep(min(0.002, max(0.0, deadline - time.perf_counter())))
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), time.perf_counter() - began


def signalled(
    job: KillJob, folder: Path, command: list[str], after: float, numbers: list[signal.Signals]
) -> int:
    """Run `command` in a fork that receives the signals `after` seconds; returns its exit status.

    The signals wait until the command answers them, as Python's own start is not ours to answer.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    began = time.perf_counter()
    child = os.fork()
    if not child:
        _run_signalled(job, folder, command)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    for number in numbers:
        while time.perf_counter() < began + after:
            time.sleep(min(0.002, max(0.0, began + after - time.perf_counter())))
        with suppress(ProcessLookupError):
            os.kill(child, number)
        after += 0.02
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def _run_signalled(job: KillJob, folder: Path, command: list[str]) -> None:
    """The child, up to the end of the command as its entry point has it: never returns."""
    code = 1
    try:
        _into(folder)
        job.patch()
        from selfie_adapters import interruption
        from selfie_adapters.__main__ import main

        sys.argv = ["selfie", *command]
        interruption.install()  # to the end of the process, as for the command itself
        try:
            with interruption.installed():
                signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
                main()
            code = 0
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
        sys.stdout.flush(), sys.stderr.flush()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _into(folder: Path) -> None:
    log = os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1), os.dup2(log, 2)
    os.chdir(folder)


def _run(job: KillJob, folder: Path, room: int | None) -> None:
    """The child: never returns."""
    code = 1
    try:
        _into(folder)
        job.patch()
        from selfie_adapters.cli import main

        if room is not None:
            hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
        try:
            main(job.command(folder))
            code = 0
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
        sys.stdout.flush(), sys.stderr.flush()
        if room is not None:
            os._exit(code)
        (folder / "modules.json").write_text(json.dumps(sorted(sys.modules)))
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


@contextmanager
def prepared(job: KillJob) -> Iterator[tuple[Path, dict[str, Any], float]]:
    """Inputs of the job, its results without interruption, and the seconds that it takes."""
    with tempfile.TemporaryDirectory() as scratch, job.server():
        inputs, whole = Path(scratch) / "inputs", Path(scratch) / "whole"
        inputs.mkdir()
        job.prepare(inputs)
        usual = 0.0
        for _ in range(2):  # the first one tells what to import
            shutil.rmtree(whole, ignore_errors=True)
            shutil.copytree(inputs, whole)
            code, usual = attempt(job, whole, None)
            assert code == 0, (whole / "log.txt").read_text()
            _warm_up(whole)
        expected = job.results(whole)
        assert expected
        yield inputs, expected, usual


def _compare(job: KillJob, folder: Path, expected: dict[str, Any], what: str) -> None:
    found = job.results(folder)
    different = [name for name in expected if found.get(name) != expected[name]]
    assert found.keys() == expected.keys(), (what, sorted(found), sorted(expected))
    assert not different, f"{what}: {different} differ"
    left = [str(path) for path in folder.rglob("*") if path.name.startswith(".")]
    assert not left, f"{what}: left behind: {left}"


def run_with_kills(job: KillJob, kills: int, seed: int) -> dict[str, Any]:
    """Whole lives of the job, each killed at random moments until it is done, until `kills` fell.

    Raises AssertionError where a life ends otherwise than the uninterrupted run did.
    """
    chance = random.Random(seed)
    with prepared(job) as (inputs, expected, usual):
        done = lives = attempts = 0
        while done < kills:
            folder = inputs.parent / f"life{lives}" / "whole"
            shutil.copytree(inputs, folder)
            lives += 1
            for _ in range(_MOST_ATTEMPTS):
                code, _ = attempt(job, folder, chance.random() * usual)
                attempts += 1
                if code == 0:
                    break
                assert code == -signal.SIGKILL, _log(folder)
                done += 1
                job.after_kill(folder)
            else:
                raise AssertionError(f"not done after {_MOST_ATTEMPTS} attempts")
            _compare(job, folder, expected, f"seed {seed}, life {lives}")
            shutil.rmtree(folder.parent)
    return {"kills": done, "lives": lives, "attempts": attempts, "seconds_per_run": round(usual, 3)}


def run_with_signals(job: KillJob, count: int, seed: int) -> dict[str, Any]:
    """Lives of the job, each stopped by signals, one or two, until `count` attempts were stopped.

    The next attempt is the command that the one line of the last one states.
    Raises AssertionError where there is another line, or another exit status than the signal's,
    or where a life ends otherwise than the uninterrupted run did.
    """
    chance = random.Random(seed)
    with prepared(job) as (inputs, expected, usual):
        stopped = lives = 0
        while stopped < count:
            folder = inputs.parent / f"life{lives}" / "whole"
            shutil.copytree(inputs, folder)
            lives += 1
            command = job.command(folder)
            for turn in range(_MOST_ATTEMPTS):
                number = chance.choice(SIGNALS)
                numbers = [number] * chance.choice([1, 2])
                # At the start, anywhere, and in the end, where the results are written.
                moment = (0.0, chance.random(), 0.9 + chance.random() / 5)[(lives + turn) % 3]
                code = signalled(job, folder, command, moment * usual, numbers)
                said = _log(folder)
                ends = [line for line in said.splitlines() if "stopped by " in line]
                what = f"seed {seed}, life {lives}, {numbers} at {moment:.2f}: {code}\n{said}"
                if code == 0 and not ends:
                    break
                stopped += 1
                name = "Ctrl-C" if number == signal.SIGINT else number.name
                assert code == 128 + number, what
                assert len(ends) == 1, what
                assert f"stopped by {name}" in ends[0], what
                assert said.endswith(f"{ends[0]}\n"), what
                assert "Traceback" not in said, what
                job.after_kill(folder)
                if "with: selfie " in ends[0]:
                    command = shlex.split(ends[0].rpartition("with: selfie ")[2])
                else:
                    assert "Run the same command again" in ends[0], what
            else:
                raise AssertionError(f"not done after {_MOST_ATTEMPTS} attempts")
            _compare(job, folder, expected, f"seed {seed}, life {lives}")
            shutil.rmtree(folder.parent)
    return {"stopped": stopped, "lives": lives, "seconds_per_run": round(usual, 3)}


def run_on_full_disks(job: KillJob, disks: int, seed: int) -> dict[str, Any]:
    """Attempts of the job on disks that are full at random sizes, each then resumed with room.

    Raises AssertionError where a full disk is not one line that names a file, or where the resumed
    job ends otherwise than one that always had room.
    """
    chance = random.Random(seed)
    with prepared(job) as (inputs, expected, usual):
        sizes = [len(v) for v in expected.values() if isinstance(v, bytes)]
        failed = 0
        for number in range(disks):
            folder = inputs.parent / f"disk{number}" / "whole"
            shutil.copytree(inputs, folder)
            room = int(max(sizes) * chance.random())
            code, _ = attempt(job, folder, None, room)
            said = _log(folder)
            if code:
                failed += 1
                errors = [line for line in said.splitlines() if line.startswith("error: ")]
                assert (code, len(errors)) == (1, 1), said
                assert "cannot be written: " in errors[0], said
                assert "Traceback" not in said, said
                job.after_kill(folder)
            code, _ = attempt(job, folder, None)
            assert code == 0, _log(folder)
            _compare(job, folder, expected, f"seed {seed}, room for {room} bytes")
            shutil.rmtree(folder.parent)
    return {"disks": disks, "failed": failed, "seconds_per_run": round(usual, 3)}


def _log(folder: Path) -> str:
    file = folder / "log.txt"
    return file.read_text(errors="replace") if file.exists() else ""


def _warm_up(folder: Path) -> None:
    for name in json.loads((folder / "modules.json").read_text()):
        if name not in sys.modules and not name.startswith(("_distutils_hack", "antigravity")):
            with suppress(Exception):
                importlib.import_module(name)
    assert threading.active_count() == 1, threading.enumerate()  # or forking would be unsound
    gc.collect()
    gc.freeze()


def main() -> None:
    what, name, count, seed = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    from kill_jobs import JOBS

    runs = {"kills": run_with_kills, "full": run_on_full_disks, "signals": run_with_signals}
    run = runs[what]
    sys.stdout.write(json.dumps({"job": name, **run(JOBS[name](), count, seed)}) + "\n")


if __name__ == "__main__":
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = "1"
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "COLUMNS": "120"}
    os.environ["SELFIE_CACHE"] = tempfile.mkdtemp()
    try:
        main()
    finally:
        shutil.rmtree(os.environ["SELFIE_CACHE"], ignore_errors=True)
