"""A bar for downloads; on a console that is no terminal it shows nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress


@contextmanager
def files_fetched(console: Console) -> Iterator[Callable[[int, int], None]]:
    """Yield what is to be called with the number of files done and of files in all."""
    with Progress(
        *Progress.get_default_columns(), MofNCompleteColumn(), console=console, transient=True
    ) as bar:
        task = bar.add_task("label batches", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
