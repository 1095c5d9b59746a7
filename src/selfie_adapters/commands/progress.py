"""Progress bars of the commands; where standard output is no terminal they print nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import MofNCompleteColumn, Progress

from selfie_adapters.output import visible


@contextmanager
def progress_bars(console: Console) -> Iterator[Progress]:
    """Bars that disappear when the block ends."""
    columns = [*Progress.get_default_columns(), MofNCompleteColumn()]
    hidden = not console.is_terminal
    bars = Progress(*columns, console=console, transient=True, disable=hidden)
    if hidden:  # not started: rich 14 prints an empty line when it stops, also where it is disabled
        yield bars
    else:
        with bars:
            yield bars


@contextmanager
def files_fetched(console: Console) -> Iterator[Callable[[int, int], None]]:
    """Yield what is to be called with the number of files done and of files in all."""
    with progress_bars(console) as bars:
        task = bars.add_task("label batches", total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


@contextmanager
def steps_shown(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """Yield what is to be called with what is being done, how much is done, and of how much."""
    with progress_bars(console) as bars:
        task = bars.add_task("", total=None)
        yield lambda what, done, of: bars.update(
            task, description=escape(visible(what)), completed=done, total=of
        )
