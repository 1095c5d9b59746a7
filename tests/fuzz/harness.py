"""Damaged inputs for one door of the project at a time.

A door is whatever reads files that others wrote. Its property: every input ends in the project's
own error, which names the file, or in a correct result; never in another exception, a warning, a
hang, or memory far beyond the input. `run` makes valid inputs, damages each, and checks that.

Seeded: an input depends on the door's name, the seed and the input's number alone. A failing input
is kept in the test's folder, and the message gives its number. The environment sets how many:
SELFIE_FUZZ_INPUTS (2,000 in the fast suite, 100,000 in `make fuzz`) and SELFIE_FUZZ_SEED.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
from collections.abc import Callable, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from selfie_adapters.errors import SelfieError

Files = Mapping[str, bytes]
"""An input: contents by file name (`sub/name` for files in folders)."""

SECONDS = 10
"""Processor time that one input may take; the inputs are small."""
WAITING = 12
"""Times as long it may take in all: the machine may be busy."""
MEMORY = 64 * 2**20
"""Bytes that one input may add to the process at its peak."""


class Hang(BaseException):
    """An input took longer than SECONDS. No Exception: `except Exception` must not hide it."""


def run(
    door: str,
    folder: Path,
    make_valid: Callable[[random.Random], Files | bytes],
    mutate: Callable[[random.Random, bytes], bytes],
    read: Callable[[Path], object],
    *,
    file: str = "input",
    names_file: bool = True,
    inputs: int | None = None,
) -> None:
    """Read damaged inputs through `read`; raise AssertionError for the first that breaks the rule.

    make_valid: a valid input: one file's bytes (called `file`), or several files by name. It is
    read once undamaged, which must succeed. mutate: damages one file's bytes; of several files, one
    is chosen. read: gets the path of the one file, or the folder that holds the several, and
    returns or raises SelfieError; it may assert what it knows about a result. names_file: an error
    must contain the name of the file or folder it was given.
    """
    count = inputs if inputs is not None else int(os.environ.get("SELFIE_FUZZ_INPUTS", "2000"))
    seed = os.environ.get("SELFIE_FUZZ_SEED", "0")
    place = folder / "fuzz"
    _check(place, file, make_valid(random.Random(f"{door}:{seed}")), read, names_file, valid=True)
    _reset_peak()
    for number in range(count):
        rng = random.Random(f"{door}:{seed}:{number}")
        content = make_valid(rng)
        if isinstance(content, bytes):
            damaged: Files | bytes = mutate(rng, content)
        else:
            damaged = dict(content)
            name = rng.choice(sorted(damaged))
            damaged[name] = mutate(rng, damaged[name])
        try:
            _check(place, file, damaged, read, names_file)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            raise AssertionError(
                f"{door}, seed {seed}, input {number} (kept in {place}): "
                f"{type(error).__name__}: {error}"
            ) from error


def _check(
    place: Path,
    file: str,
    content: Files | bytes,
    read: Callable[[Path], object],
    names_file: bool,
    valid: bool = False,
) -> None:
    """Write the input, read it, and judge how that ended."""
    target = _write(place, file, content)
    before = _peak()
    with _limit(SECONDS):
        try:
            read(target)
        except SelfieError as error:
            if valid:
                raise
            message = str(error)
            assert message.strip(), "an error without a message"
            if names_file:
                assert target.name in message, f"the error does not name {target.name}: {message}"
    grown = _peak() - before
    assert grown <= MEMORY, f"{grown / 2**20:.0f} MiB of memory"


def _write(place: Path, file: str, content: Files | bytes) -> Path:
    if isinstance(content, bytes):
        place.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # a new file each time: the old one may still be mapped
            (place / file).unlink()
        (place / file).write_bytes(content)
        return place / file
    shutil.rmtree(place, ignore_errors=True)
    for name, data in content.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(data)
    return place


@contextmanager
def _limit(seconds: float):
    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise Hang(f"more than {seconds} s of processor time, or {WAITING * seconds} s in all")

    timers = {
        signal.SIGPROF: (signal.ITIMER_PROF, seconds),
        signal.SIGALRM: (signal.ITIMER_REAL, WAITING * seconds),
    }
    previous = {number: signal.signal(number, stop) for number in timers}
    for timer, limit in timers.values():
        signal.setitimer(timer, limit)
    try:
        yield
    finally:
        for number, (timer, _) in timers.items():
            signal.setitimer(timer, 0)
            signal.signal(number, previous[number])


def _peak() -> int:
    """Bytes of resident memory at the process's peak so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _reset_peak() -> None:
    """Count the peak from now on, where the system can (Linux)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
