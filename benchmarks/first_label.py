"""Seconds until a newcomer sees a label: commands of the README on the demo model.

    python benchmarks/first_label.py

Each command runs in a terminal of its own, twice: with an empty cache, for which the demo model's
GGUF file is converted first, and with what that run left. Two times are taken by the clock, until
the first label is on the terminal and until the command ends (or, of a program, until it has its
label). Leave the machine alone meanwhile.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

SELFIE = [sys.executable, "-m", "selfie_adapters"]
PROGRAM = """
from selfie_adapters import load_adapter, load_dataset, load_model, Labeller
from selfie_adapters.adapters.locating import shipped_concepts
adapter = load_adapter("demo")
labeller = Labeller(load_model("demo"), adapter)
vectors = load_dataset(str(shipped_concepts("demo"))).sections[0].vectors[:1]
print("label:", labeller.label(vectors)[0][0].text)
"""
COMMANDS: dict[str, tuple[list[str], str]] = {
    'label --text "She saw an owl"': (
        [*SELFIE, "label", "--text", "She saw an owl"],
        r"8 +owl",
    ),
    "label --concept owl": ([*SELFIE, "label", "--concept", "owl"], r"\d+ +owl"),
    "label": ([*SELFIE, "label"], r"1 +Cambridge"),
    'read "She saw an owl" --out reading': (
        [*SELFIE, "read", "She saw an owl", "--out", "reading"],
        r"layer \d+ +layer",
    ),
    "a program of six lines": ([sys.executable, "-c", PROGRAM], r"label: \w"),
}
"""By name: the command, and what its output holds once a label is there."""
_STYLES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Times(NamedTuple):
    """Seconds since the start of a command."""

    first_label: float
    end: float


def timed(command: Sequence[str], sign: str, folder: Path, cache: Path) -> Times:
    """Run `command` in `folder`, in a terminal of 120 columns; sign: a pattern of its output.

    Raises RuntimeError with its output if it fails or never prints that.
    """
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 60, 120, 0, 0))
    environment = {**os.environ, "SELFIE_CACHE": str(cache), "TERM": "xterm"}
    start, shown, first = time.perf_counter(), "", None
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=its, stderr=its
    )
    os.close(its)
    while piece := _read(ours):
        shown += piece
        if first is None and re.search(sign, _STYLES.sub("", shown)):
            first = time.perf_counter() - start
    code = process.wait()
    end = time.perf_counter() - start
    os.close(ours)
    if code or first is None:
        raise RuntimeError(f"{' '.join(command)} ended with {code}:\n{shown}")
    return Times(first, end)


def _read(terminal: int) -> str:
    """The next output, empty at the end."""
    try:
        return os.read(terminal, 1 << 16).decode(errors="replace")
    except OSError:  # how a terminal ends on Linux
        return ""


def main() -> None:
    form = argparse.RawDescriptionHelpFormatter
    argparse.ArgumentParser(description=__doc__, formatter_class=form).parse_args()
    print("| command | cache | first label, s | end, s |\n|---|---|---|---|")
    for name, (command, sign) in COMMANDS.items():
        with tempfile.TemporaryDirectory() as cache:
            for state in ("empty", "filled"):
                with tempfile.TemporaryDirectory() as folder:
                    times = timed(command, sign, Path(folder), Path(cache))
                print(f"| {name} | {state} | {times.first_label:.1f} | {times.end:.1f} |")


if __name__ == "__main__":
    main()
