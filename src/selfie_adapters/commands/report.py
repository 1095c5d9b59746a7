"""`selfie report`: one page for labelling, training and evaluation runs."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from selfie_adapters.commands.options import options
from selfie_adapters.config.report import ReportSettings
from selfie_adapters.errors import ConfigError
from selfie_adapters.extras import require_extra
from selfie_adapters.files import user_path
from selfie_adapters.output import visible


@options(ReportSettings)
def report(settings: ReportSettings, *runs: Path) -> None:
    """One page for runs of selfie label, train and eval: labels, controls, curves, failures.

    The page needs no other file and no network. Several evaluations are compared with each other.

    Parameters
    ----------
    runs
        Folders of runs (--out of selfie label and selfie eval; of selfie train, its run folder).
    """
    require_extra("report", "selfie report")
    if not runs:
        raise ConfigError("selfie report: give the folder of at least one run.")
    from selfie_adapters.report.run_page import write_run_page

    page = user_path(runs[0]) / "report.html" if settings.out is None else user_path(settings.out)
    if page.is_dir():
        raise ConfigError(f"{page} is a folder; --out must name an HTML file.")
    sections = write_run_page(page, runs)
    console = Console()
    for one in sections:
        line = f"{one.name}: {one.what}"
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    console.print(f"report: {visible(str(page))}", highlight=False, markup=False, soft_wrap=True)
