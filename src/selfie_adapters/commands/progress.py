"""A bar for downloads; on a console that is no terminal it shows nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress


@contextmanager
def files_fetched(console: Console) -> Iterator[Callable[[int, int], None]]:
    """Yield what is to be called with the number of files done and of files in all."""
    columns = [*Progress.get_default_columns(), MofNCompleteColumn()]
    hidden = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as bar:
        task = bar.add_task("label batches", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def steps_shown(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """Yield what is to be called with what is being done, how much is done, and of how much."""
    columns = [*Progress.get_default_columns(), MofNCompleteColumn()]
    hidden = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as bar:
        task = bar.add_task("", total=None)
        yield lambda what, done, of: bar.update(task, description=what, completed=done, total=of)
