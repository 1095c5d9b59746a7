"""The loss curve of a run as a PNG in its folder."""

from __future__ import annotations

from pathlib import Path

from selfie_adapters.report.figures import loss_figure, write_png
from selfie_adapters.training.run_reading import read_run


def write_loss_curve(folder: str | Path) -> Path | None:
    """Draw `loss_curve.png` from the run's metrics.jsonl; None if there is no curve to draw.

    Raises MissingExtraError without matplotlib.
    """
    run = read_run(folder)
    if not run.training:
        return None
    figure = loss_figure(
        list(run.training), list(run.training.values()), sorted(run.validation.items())
    )
    path = run.path / "loss_curve.png"
    write_png(path, figure)
    return path
