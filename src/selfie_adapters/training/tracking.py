"""What a run reports while it trains. `metrics.jsonl` is the record; all else is a view of it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
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

from selfie_adapters.config.shared import Sampling
from selfie_adapters.files.json_lines import append_jsonl
from selfie_adapters.inference.generate import answer_text, generate_labels, label_in, quote_tokens
from selfie_adapters.model import SharedPrefix
from selfie_adapters.model.prefix import shareable
from selfie_adapters.output import visible
from selfie_adapters.training.mirrors import MirrorThread
from selfie_adapters.training.setup import Setup

_PLAIN_LINE_EVERY_SECONDS = 15.0


class Tracker:
    """Appends rows to `metrics.jsonl`, shows steps (a live bar on a terminal, else lines), and
    hands the numbers on to the mirrors."""

    def __init__(self, metrics: Path | None, console: Console | None, log_every: int = 1) -> None:
        """metrics None writes nothing, console None is silent: a process that is not the writer.

        log_every: steps between two training rows; the last step has one too.
        """
        self._metrics = metrics
        self._console = console
        self._log_every = log_every
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._total = 0
        self._last_line = time.monotonic()
        self._began = (0, time.monotonic())  # the steps done when `showing` began, and when
        self.mirrors: list[MirrorThread] = []

    @contextmanager
    def showing(self, total: int, title: str, done: int = 0) -> Iterator[None]:
        """Show progress over `total` steps, `done` of them done, while the block runs."""
        self._total = total
        self._began = (done, time.monotonic())
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
            self._task = self._progress.add_task(title, total=total, completed=done, status="")
            yield
        self._progress = None

    def step(self, row: dict[str, Any]) -> None:
        """One optimizer step: row holds at least step, loss and examples_per_second."""
        if row["step"] % self._log_every == 0 or row["step"] == self._total:
            self._write("step", row)
        status = f"loss {row['loss']:.3f}  {row['examples_per_second']:.0f} examples/s"
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=row["step"], status=status)
        elif self._console is not None:
            now = time.monotonic()
            if now - self._last_line > _PLAIN_LINE_EVERY_SECONDS or row["step"] == self._total:
                self._last_line = now
                left = self._left(row["step"], now)
                self._console.print(
                    f"step {row['step']}/{self._total}  {status}{left}", highlight=False
                )

    def _left(self, step: int, now: float) -> str:
        """How long the other steps take at the rate of those since `showing`; empty at the end."""
        first, began = self._began
        if step <= first or step == self._total:
            return ""
        seconds = (self._total - step) * (now - began) / (step - first)
        return f"  {timedelta(seconds=round(seconds))} left"

    def event(self, event: str, line: str, **row: Any) -> None:
        """Something other than a step: written, and shown as a line above the bar."""
        self._write(event, row)
        self.say(line)

    def say(self, line: str) -> None:
        """Show a line and write nothing."""
        if self._console is not None:
            self._console.print(visible(line), highlight=False, markup=False)

    def flush(self) -> int:
        """Put metrics.jsonl on the disk; returns its length in bytes."""
        if self._metrics is None or not self._metrics.exists():
            return 0
        with self._metrics.open("rb") as file:
            os.fsync(file.fileno())
            return os.fstat(file.fileno()).st_size

    def _write(self, event: str, row: dict[str, Any]) -> None:
        if self._metrics is None:
            return
        append_jsonl(self._metrics, {"event": event, **row})
        numbers = dict(_numbers(event, row))
        for mirror in self.mirrors:
            mirror.send(numbers, row["step"])


def _numbers(prefix: str, value: Any) -> Iterator[tuple[str, float]]:
    """The numbers of a row by path ("validation/controls/zero"); lists and strings are omitted."""
    if isinstance(value, bool) or value is None:
        return
    if isinstance(value, int | float):
        yield prefix, float(value)
    elif isinstance(value, dict):
        for key, inner in value.items():
            if key != "step":
                yield from _numbers(f"{prefix}/{key}", inner)


_SINGULAR_VALUES = 64  # at most this number is recorded


def observe(setup: Setup, tracker: Tracker, step: int) -> None:
    """Write what the configuration requests after `step` optimizer steps."""
    logging = setup.config.logging
    every = logging.log_singular_values_every_n_steps
    if every and step % every == 0:
        show_singular_values(setup, tracker, step)
    samples = logging.log_sample_generations
    if samples and step % logging.log_generations_every_n_steps == 0:
        show_samples(setup, tracker, step, samples)


def show_singular_values(setup: Setup, tracker: Tracker, step: int) -> None:
    """Singular values of the adapter's matrix and its share; nothing for kinds without one."""
    values = setup.adapter.singular_values()
    if values is None:
        return
    share = setup.adapter.low_rank_share()
    shown = "" if share is None else f", low-rank share {share:.1%}"
    tracker.event(
        "singular_values",
        f"step {step}: largest singular value {float(values[0]):.4g}{shown}",
        step=step,
        scale=setup.adapter.scale(),
        bias_norm=setup.adapter.bias_norm(),
        low_rank_share=share,
        singular_values=values[:_SINGULAR_VALUES].tolist(),
    )


def show_samples(setup: Setup, tracker: Tracker, step: int, count: int) -> None:
    """Labels that the model generates now, with the given ones; the same vectors each time."""
    split = setup.val if len(setup.val) else setup.train
    rows = torch.linspace(0, len(split) - 1, min(count, len(split))).long().unique()
    with torch.no_grad():
        soft = setup.adapter(split.vectors(rows))
    model, prompt = setup.model, shareable(setup.model, setup.prompt)
    prefix = SharedPrefix(model, prompt.prefix_ids)
    answers = generate_labels(
        model, prompt, prefix, soft, [0] * len(rows), Sampling(), quote_tokens(model)
    )
    samples = [
        {**split.describe(row), "written": label_in(answer_text(model.tokenizer, answer.ids))}
        for row, answer in zip(rows.tolist(), answers, strict=True)
    ]
    lines = [f"  {one['label']!r:.40} → {one['written']!r:.60}" for one in samples]
    said = f"step {step}: label → what is written\n" + "\n".join(lines)
    tracker.event("samples", said, step=step, samples=samples)


def show_mixture(setup: Setup, tracker: Tracker, step: int, epoch: int) -> None:
    """How many examples each dataset gives to an epoch."""
    counts = setup.order.counts(epoch)
    shown = ", ".join(f"{name} {count}" for name, count in counts.items())
    tracker.event("mixture", f"epoch {epoch}: {shown}", step=step, epoch=epoch, examples=counts)
