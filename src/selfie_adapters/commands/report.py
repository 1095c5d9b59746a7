"""`selfie report`: one page for labelling, training and evaluation runs."""

from __future__ import annotations

from selfie_adapters.commands.options import options
from selfie_adapters.commands.printing import print_line
from selfie_adapters.config.commands import ReportSettings
from selfie_adapters.errors import ConfigError
from selfie_adapters.extras import require_extra
from selfie_adapters.files import user_path


@options(ReportSettings)
def report(settings: ReportSettings, *, out: str | None = None) -> None:
    """One page for runs of selfie label, train and eval: labels, controls, curves, failures.

    The page needs no other file and no network. Several evaluations are compared with each other.

    Parameters
    ----------
    out
        HTML file to write, in place of an existing one; default: report.html in the first folder.
    """
    require_extra("report", "selfie report")
    runs = settings.runs
    if not runs:
        raise ConfigError("selfie report: give the folder of at least one run.")
    from selfie_adapters.report.run_page import write_run_page

    page = user_path(runs[0]) / "report.html" if out is None else user_path(out)
    if page.is_dir():
        raise ConfigError(f"{page} is a folder; --out must name an HTML file.")
    sections = write_run_page(page, runs)
    for one in sections:
        print_line(f"{one.name}: {one.what}")
    print_line(f"report: {page}")
