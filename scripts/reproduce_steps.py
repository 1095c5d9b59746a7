"""A step of reproduce.py: a name, one command of `selfie`, and the file that it makes."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

TOPICS = "topics.jsonl"


@dataclass(frozen=True)
class Step:
    """command: arguments of `selfie`, or of `script`. makes: the file that is there when the step
    is done.

    title: heading of its table; "" for a step without one. resume: the command that continues it,
    where that is another one; `begun` is the file that shows that it has begun. needed_for: names
    of the steps that are omitted, without being failures, if this one does not succeed.
    """

    name: str
    command: tuple[str, ...]
    makes: Path
    title: str = ""
    resume: tuple[str, ...] = ()
    begun: Path | None = None
    script: str = ""
    needed_for: tuple[str, ...] = ()

    @property
    def shown(self) -> str:
        """The command as a user types it."""
        return self.as_typed(self.command)

    def as_typed(self, command: Sequence[str]) -> str:
        return shlex.join([*(("python", self.script) if self.script else ("selfie",)), *command])

    @property
    def protocol(self) -> str:
        """The evaluation protocol; "" for other commands."""
        return "" if self.script or self.command[0] != "eval" else self.command[1]


def prepare(
    folder: Path,
    name: str,
    file: Path,
    layers: str,
    positions: str,
    extra: tuple[str, ...] = (),
) -> Step:
    command = (
        *("prepare", "topics", str(folder / TOPICS), "--model", "demo", "--layers", layers),
        *("--positions", positions, "--chat", "bare"),
        *extra,
        *("--out", str(file), "--overwrite"),
    )
    return Step(name, command, file)


def evaluate(
    folder: Path, protocol: str, title: str, *options: tuple[str, ...], name: str = ""
) -> Step:
    out = folder / (name or protocol)
    given = [one for some in options for one in some]
    command = ("eval", protocol, *given, "--out", str(out))
    return Step(name or protocol, command, out / "results.json", title)
