"""Processes that start with torch loaded: forks of a server that has imported it once.

A new interpreter takes 3 seconds to import torch and transformers, more than most tests need for
their work. The forks have their own folder, environment, standard streams, signals and exit
status, and import the package themselves. Where the start of the interpreter is tested, or a
library that reads the environment when it is imported, use `subprocess`.
"""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import runpy
import signal
import sys
import tempfile
from collections.abc import Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from subprocess import CompletedProcess, TimeoutExpired
from typing import Any

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    [
        "transformers.models.llama.modeling_llama",
        "transformers.models.auto.tokenization_auto",
        "transformers.modeling_gguf_pytorch_utils",
        "safetensors.torch",
        "pydantic.type_adapter",
        "cyclopts",
        "msgspec",
        "rich.progress",
    ]
)


def start(
    arguments: Sequence[object],
    cwd: Path,
    out: str | Path = os.devnull,
    err: str | Path = os.devnull,
    **environment: str,
) -> ForkServerProcess:
    """Start `python ARGUMENTS`: `-m MODULE …`, `-c CODE …` or `SCRIPT …`.

    out, err: files for the standard streams; environment: on top of this process's own.
    Returns a process with `pid`, `kill()`, `join(timeout)` and `exitcode` (None while it runs,
    -9 after a kill).
    """
    variables = {**os.environ, **environment}
    process = _FORKS.Process(target=_run, args=([*map(str, arguments)], cwd, out, err, variables))
    process.start()
    return process


def run(
    arguments: Sequence[object], cwd: Path, timeout: float = 300, **environment: str
) -> CompletedProcess[str]:
    """`subprocess.run` of `python ARGUMENTS` with its output captured as UTF-8."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder) / "out", Path(folder) / "err"
        process = start(arguments, cwd, out, err, **environment)
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            raise TimeoutExpired([*map(str, arguments)], timeout)
        written = [file.read_text(encoding="utf-8") for file in (out, err)]
    return CompletedProcess([*map(str, arguments)], process.exitcode, *written)


def printed_json(arguments: Sequence[object], cwd: Path) -> Any:
    """The value on the one line of JSON that `python ARGUMENTS` prints."""
    done = run(arguments, cwd)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    return json.loads(line)


def _run(
    arguments: list[str],
    cwd: Path,
    out: str | Path,
    err: str | Path,
    variables: dict[str, str],
) -> None:
    """The fork: its streams, environment and arguments are those of a new interpreter."""
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(variables)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, name in ((1, out), (2, err)):
        opened = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(opened, number)
        os.close(opened)
    encoding, _, errors = variables.get("PYTHONIOENCODING", "utf-8").partition(":")
    for stream, wrong in ((sys.stdout, errors or "strict"), (sys.stderr, "backslashreplace")):
        assert isinstance(stream, io.TextIOWrapper)
        stream.reconfigure(encoding=encoding, errors=wrong)
    first, *rest = arguments
    if first == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        sys.argv = ["-c", *rest[1:]]
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = arguments
        sys.path.insert(0, str(Path(first).parent))
        runpy.run_path(first, run_name="__main__")
