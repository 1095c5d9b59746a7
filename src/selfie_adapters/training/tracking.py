"""What a run says while it goes on: `metrics.jsonl` is the truth, the progress bar a view of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from selfie_adapters.files import append_jsonl

_PLAIN_LINE_EVERY_SECONDS = 15.0


class Tracker:
    """Appends rows to `metrics.jsonl` and shows steps: a live bar on a terminal, else lines."""

    def __init__(self, metrics: Path, console: Console | None, log_every: int = 1) -> None:
        """console None is silent. log_every: training rows are written every so many steps."""
        self._metrics = metrics
        self._console = console
        self._log_every = log_every
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._total = 0
        self._last_line = time.monotonic()

    @contextmanager
    def showing(self, total: int, title: str) -> Iterator[None]:
        """Show progress over `total` steps while the block runs."""
        self._total = total
        if self._console is None or not self._console.is_terminal:
            yield
            return
        with Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[status]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
        ) as self._progress:
            self._task = self._progress.add_task(title, total=total, status="")
            yield
        self._progress = None

    def step(self, row: dict[str, Any]) -> None:
        """One optimizer step: row holds at least step, loss and examples_per_second."""
        if row["step"] % self._log_every == 0 or row["step"] == self._total:
            append_jsonl(self._metrics, {"event": "step", **row})
        status = f"loss {row['loss']:.3f}  {row['examples_per_second']:.0f} examples/s"
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=row["step"], status=status)
        elif self._console is not None:
            now = time.monotonic()
            if now - self._last_line > _PLAIN_LINE_EVERY_SECONDS or row["step"] == self._total:
                self._last_line = now
                self._console.print(f"step {row['step']}/{self._total}  {status}", highlight=False)

    def event(self, event: str, line: str, **row: Any) -> None:
        """Something other than a step: written, and shown as a line above the bar."""
        append_jsonl(self._metrics, {"event": event, **row})
        if self._console is not None:
            self._console.print(line, highlight=False, markup=False)
