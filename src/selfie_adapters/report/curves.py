"""The loss curve of a run as a PNG in its folder."""

from __future__ import annotations

from pathlib import Path

from selfie_adapters.files import atomic_path
from selfie_adapters.report.figures import loss_figure
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
    with atomic_path(path) as temporary:
        # no version or date in the file: the same run gives the same bytes
        figure.savefig(temporary, format="png", dpi=150, metadata={"Software": None})
    return path
