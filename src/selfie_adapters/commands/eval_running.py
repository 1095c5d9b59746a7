"""An evaluation as a command: checks, progress, tables, figures, published result files."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console

from selfie_adapters.commands.checking import check_inputs
from selfie_adapters.commands.printing import print_line, rich_table
from selfie_adapters.commands.progress import steps_shown
from selfie_adapters.errors import MissingExtraError
from selfie_adapters.evaluation.base import Protocol, Published
from selfie_adapters.evaluation.naming.results import naming_panels
from selfie_adapters.evaluation.published.bridge import TranslatedBridge
from selfie_adapters.evaluation.tables import Table
from selfie_adapters.extras import require_extra
from selfie_adapters.files import write_text
from selfie_adapters.report.bridge_page import write_bridge_page, write_question_heat_map
from selfie_adapters.report.figures import loss_matrix, naming_by_block


def run_protocol(
    protocol: type[Protocol[Any]],
    given: Any,
    folder: Path,
    console: Console,
) -> None:
    """Run a protocol, or resume it, and show its results.

    given: settings, or a `Published` configuration, whose own result files are written too.
    """
    published = given if isinstance(given, Published) else None
    settings: Any = given.settings if published is not None else given
    check_inputs(model=getattr(settings, "model", None), device=getattr(settings, "device", None))
    name = protocol.name()
    if name == "bridge":
        require_extra("report", "selfie eval bridge")
    if published is not None and published.ignored:
        print_line(f"keys without a meaning here: {', '.join(published.ignored)}", console)
    with steps_shown(console) as progress:
        path = protocol.run(settings, folder, progress=progress)
    results = json.loads(path.read_text(encoding="utf-8"))
    for one in protocol.report(results):
        print_report(console, one)
    if name in FIGURES:
        try:
            print_line(FIGURES[name](folder, results), console)
        except MissingExtraError as error:
            console.print(f"no figure: {error}", style="yellow", highlight=False, markup=False)
    if published is not None:
        files = published.write(folder)
        if isinstance(published, TranslatedBridge):
            files.append(published.file(folder, "heatmap_q{}.png"))
            write_question_heat_map(files[-1], published.row(folder))
        for file in files:
            print_line(f"published format: {file}", console)
    print_line(f"results: {path}", console)


def print_report(console: Console, one: Table | str) -> None:
    """Print a table, or a line, that `Protocol.report` yields."""
    if isinstance(one, str):
        print_line(one, console)
        return
    looks: dict[str, Any] = {}
    if one.narrow:
        looks = {"box": box.SIMPLE, "pad_edge": False, "collapse_padding": True}
    console.print(
        rich_table(
            one.columns, one.rows, one.title or None, one.caption, one.names, one.bold, **looks
        )
    )


def _bridge(folder: Path, results: Mapping[str, Any]) -> str:
    page = folder / "bridge.html"
    write_bridge_page(page, dict(results), folder / "rows.jsonl")
    return f"heat-maps: {page}"


def _loss(folder: Path, results: Mapping[str, Any]) -> str:
    matrix = results["matrix"]
    figure = loss_matrix(matrix["rows"], matrix["columns"], matrix["loss"])
    return _figure(folder / "matrix.svg", figure)


def _naming(folder: Path, results: Mapping[str, Any]) -> str:
    return _figure(folder / "naming.svg", naming_by_block(naming_panels(results)))


def _figure(path: Path, svg: str) -> str:
    write_text(path, svg)
    return f"figure: {path}"


FIGURES: dict[str, Callable[[Path, Mapping[str, Any]], str]] = {
    "bridge": _bridge,
    "loss": _loss,
    "naming": _naming,
}
"""What draws a protocol's figures: writes them into the folder, returns the line that names them.
The layer `report` draws them, so that evaluations need no plotting library."""
