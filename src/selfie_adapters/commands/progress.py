"""Progress of the commands: bars on a terminal, else a line from time to time."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from selfie_adapters.output import visible
from selfie_adapters.progress import StepProgress

_LINE_EVERY_SECONDS = 10.0
_SPEED_OVER_SECONDS = 120.0


@contextmanager
def progress_bars(console: Console) -> Iterator[Progress]:
    """Bars with rate and time left that disappear when the block ends.

    Where standard output is no terminal, lines on standard error instead: one for each ten
    seconds of a task, so that what is piped is the result alone and short work prints nothing.
    """
    if not console.is_terminal:
        yield _PlainLines()
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        yield bars


@contextmanager
def count_shown(console: Console, what: str) -> Iterator[Callable[[int, int], None]]:
    """Yield what is to be called with how many are done, and how many there are in all."""
    with progress_bars(console) as bars:
        task = bars.add_task(what, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


@contextmanager
def steps_shown(console: Console) -> Iterator[StepProgress]:
    """Yield what is to be called with what is being done, how much is done, and of how much."""
    with progress_bars(console) as bars:
        tasks: dict[str, TaskID] = {}

        def show(what: str, done: int, of: int) -> None:
            if what not in tasks:  # a task of its own: the rate of one says nothing of the next
                for earlier in tasks.values():
                    bars.update(earlier, visible=False)
                tasks[what] = bars.add_task(escape(visible(what)), total=of, completed=done)
            bars.update(tasks[what], completed=done, total=of, visible=True)

        yield show


class _Rate(ProgressColumn):
    """How much is done per second, or per minute where that is less than one."""

    def render(self, task: Task) -> Text:
        return Text(_rate(task), style="progress.data.speed")


class _PlainLines(Progress):
    """The tasks of a bar that is never drawn; lines on standard error."""

    def __init__(self) -> None:
        # Never started: rich 14 prints an empty line when it stops, also where it is disabled.
        super().__init__(
            disable=True,
            speed_estimate_period=_SPEED_OVER_SECONDS,
            get_time=lambda: time.monotonic(),
        )
        self._shown: dict[TaskID, float] = {}

    def add_task(self, description: str, *args: Any, **kwargs: Any) -> TaskID:
        task = super().add_task(description, *args, **kwargs)
        self._shown[task] = time.monotonic()
        return task

    def update(self, task_id: TaskID, **kwargs: Any) -> None:
        super().update(task_id, **kwargs)
        self._print(task_id)

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        super().advance(task_id, advance)
        self._print(task_id)

    def _print(self, task_id: TaskID) -> None:
        now = time.monotonic()
        if now - self._shown[task_id] < _LINE_EVERY_SECONDS:
            return
        self._shown[task_id] = now
        (task,) = (one for one in self.tasks if one.id == task_id)
        sys.stderr.write(f"{_line(task)}\n")
        sys.stderr.flush()


def _line(task: Task) -> str:
    """Such as: vectors: 120 of 400, 3.2 per second, 0:01:27 left."""
    total = "" if task.total is None else f" of {task.total:,.0f}"
    parts = [f"{Text.from_markup(task.description)}: {task.completed:,.0f}{total}", _rate(task)]
    if (left := task.time_remaining) is not None and not task.finished:
        parts.append(f"{timedelta(seconds=round(left))} left")
    return ", ".join(part for part in parts if part)


def _rate(task: Task) -> str:
    speed = task.finished_speed or task.speed
    if not speed:
        return ""
    if speed < 1:
        return f"{60 * speed:.1f} per minute"
    return f"{speed:,.{0 if speed >= 100 else 1}f} per second"
