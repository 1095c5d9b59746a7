"""`selfie eval loss`: adapters on training files, their own and others', beside controls."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from selfie_adapters.commands.progress import steps_shown
from selfie_adapters.config.evaluation.loss import LossSettings as Settings
from selfie_adapters.errors import MissingExtraError
from selfie_adapters.evaluation.loss.protocol import run_loss
from selfie_adapters.files import write_text
from selfie_adapters.output import visible
from selfie_adapters.report.figures import loss_matrix

__all__ = ["Settings", "run"]

FIGURE = "matrix.svg"


def run(settings: Settings, folder: Path, console: Console) -> Path:
    """Run the protocol, print its table and draw the matrix."""
    with steps_shown(console) as progress:
        path = run_loss(settings, folder, progress=progress)
    results = json.loads(path.read_text(encoding="utf-8"))
    table = Table(
        title="Loss of held-out labels, nats per token (95 % intervals of controls: results.json)"
    )
    for heading in ("adapter", "data set"):
        table.add_column(heading, overflow="fold")
    controls = ("zero", "shuffled", "random", "identity", "untrained")
    for heading in ("trained", *controls, "bias share"):
        table.add_column(heading, justify="right")
    for cell in results["cells"]:
        share = cell["bias_share"]
        shown = "–" if share is None else f"{share['mean']:.2f}"
        means = [f"{cell['loss'][name]['mean']:.2f}" for name in controls]
        trained = _interval(cell["loss"]["trained"], 2)
        names = [escape(visible(cell[key])) for key in ("adapter", "dataset")]
        table.add_row(*names, trained, *means, shown)
    console.print(table)
    matrix = results["matrix"]
    try:
        write_text(folder / FIGURE, loss_matrix(matrix["rows"], matrix["columns"], matrix["loss"]))
        console.print(f"figure: {folder / FIGURE}", highlight=False, markup=False)
    except MissingExtraError as error:
        console.print(f"no figure: {error}", style="yellow", highlight=False, markup=False)
    return path


def _interval(found: dict[str, float], digits: int) -> str:
    mean, low, high = (found[key] for key in ("mean", "low", "high"))
    return f"{mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
