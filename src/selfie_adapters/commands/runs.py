"""`selfie runs …`: list training runs, compare two of them."""

from __future__ import annotations

from typing import Any

from cyclopts import App

from selfie_adapters.commands.options import Json, options
from selfie_adapters.commands.printing import print_json, print_table
from selfie_adapters.config.commands import CompareSettings, RunsSettings

runs = App(name="runs")
runs.command(
    f"{__name__}:compare",
    name="compare",
    help="Where two runs differ: configuration, validation losses, training losses.",
)


@runs.default
@options(RunsSettings)
def list_runs(settings: RunsSettings, *, json: Json = False) -> None:
    """List the runs in a folder, lowest validation loss first."""
    from selfie_adapters.training.run_reading import find_runs

    found = [run.as_dict() for run in find_runs(settings.folder)]
    if json:
        print_json(found)
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
    print_table(titles, rows, f"{len(rows)} runs in {settings.folder}")


@options(CompareSettings)
def compare(settings: CompareSettings, *, json: Json = False) -> None:
    """Show where two runs differ: configuration, validation losses, training losses."""
    from selfie_adapters.training.run_reading import compare_runs, read_run

    a, b = settings.a, settings.b
    found = compare_runs(read_run(a), read_run(b))
    if json:
        print_json([found.as_dict()])
        return
    config = [(key, *map(str, values)) for key, values in found.config.items()]
    best = [(run.best or (None, None)) for run in (found.a, found.b)]
    print_table(("key", a, b), config, "configuration")
    _curve("validation loss", "step", a, b, found.validation)
    _curve("training loss, means up to each step", "up to step", a, b, found.training)
    losses = [_number(loss) for _, loss in best]
    lowest = [("loss", *losses), ("at step", *_steps(best))]
    print_table(("", a, b), lowest, "lowest validation loss")


def _curve(title: str, first: str, a: str, b: str, rows: list[tuple[int, float, float]]) -> None:
    shown = [(step, f"{x:.4f}", f"{y:.4f}", f"{y - x:+.4f}") for step, x, y in rows]
    print_table((first, a, b, "second - first"), shown, title)


def _steps(best: list[tuple[Any, Any]]) -> list[str]:
    return ["" if step is None else str(step) for step, _ in best]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
