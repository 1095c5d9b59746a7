"""`selfie runs …`: list training runs, compare two of them."""

from __future__ import annotations

import json as json_module
import sys
from typing import Any

from selfie_adapters.commands.options import Json
from selfie_adapters.output import visible


def runs(folder: str = "runs", /, *, json: Json = False) -> None:
    """List the runs in a folder, lowest validation loss first.

    Parameters
    ----------
    folder
        Where run folders are (training.checkpoint_dir).
    """
    from selfie_adapters.training.run_reading import find_runs

    found = [run.as_dict() for run in find_runs(folder)]
    if json:
        for run in found:
            sys.stdout.write(json_module.dumps(run, ensure_ascii=False) + "\n")
        return
    rows = [
        (
            run["run"],
            run["adapter"],
            f"{run['steps']}{'' if run['finished'] else ' (not finished)'}",
            _number(run["best_val_loss"]),
            "" if run["best_step"] is None else run["best_step"],
            run["model"],
            run["labels_file"],
        )
        for run in found
    ]
    titles = ("run", "adapter", "steps", "best loss", "at step", "model", "data")
    _table(f"{len(rows)} runs in {folder}", titles, rows)


def compare(a: str, b: str, /, *, json: Json = False) -> None:
    """Show where two runs differ: configuration, validation losses, training losses.

    Parameters
    ----------
    a
        One run folder.
    b
        The other.
    """
    from selfie_adapters.training.run_reading import compare_runs, read_run

    found = compare_runs(read_run(a), read_run(b))
    if json:
        sys.stdout.write(json_module.dumps(found.as_dict(), ensure_ascii=False) + "\n")
        return
    config = [(key, *map(str, values)) for key, values in found.config.items()]
    best = [(run.best or (None, None)) for run in (found.a, found.b)]
    _table("configuration", ("key", a, b), config)
    _curve("validation loss", "step", a, b, found.validation)
    _curve("training loss, means up to each step", "up to step", a, b, found.training)
    losses = [_number(loss) for _, loss in best]
    _table("lowest validation loss", ("", a, b), [("loss", *losses), ("at step", *_steps(best))])


def _curve(title: str, first: str, a: str, b: str, rows: list[tuple[int, float, float]]) -> None:
    shown = [(step, f"{x:.4f}", f"{y:.4f}", f"{y - x:+.4f}") for step, x, y in rows]
    _table(title, (first, a, b, "second - first"), shown)


def _steps(best: list[tuple[Any, Any]]) -> list[str]:
    return ["" if step is None else str(step) for step, _ in best]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _table(title: str, columns: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), title_justify="left")
    for column in columns:
        table.add_column(Text(column), overflow="fold")
    for row in rows:
        table.add_row(*(Text(visible(str(value))) for value in row))
    Console().print(table)
    if not rows:
        Console().print("  none", style="dim")
