"""`selfie eval bridge`: is the entity that a two-hop question runs over read from its states?"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from selfie_adapters.commands.progress import steps_shown
from selfie_adapters.config.evaluation.bridge import BridgeSettings as Settings
from selfie_adapters.evaluation.bridge.protocol import run_bridge
from selfie_adapters.evaluation.published.bridge import (
    TranslatedBridge,
    published_file,
    question_row,
    read_bridge_config,
    write_published_bridge,
)
from selfie_adapters.extras import require_extra
from selfie_adapters.output import visible
from selfie_adapters.report.bridge_page import write_bridge_page, write_question_heat_map

__all__ = ["Settings", "read", "run"]


def read(
    config: Path, changes: Sequence[str], given: Mapping[str, Any]
) -> Settings | TranslatedBridge:
    """Settings from this project's own form of file or from a published one."""
    return read_bridge_config(config, changes, given)


def run(given: Settings | TranslatedBridge, folder: Path, console: Console) -> Path:
    """Run the protocol, print its table, write the page with the heat-maps.

    Of a published file, write its result files too.
    """
    settings = given.settings if isinstance(given, TranslatedBridge) else given
    if isinstance(given, TranslatedBridge) and given.ignored:
        listed = visible(", ".join(given.ignored))
        console.print(f"keys without a meaning here: {listed}", highlight=False, markup=False)
    require_extra("report", "selfie eval bridge")
    with steps_shown(console) as progress:
        path = run_bridge(settings, folder, progress=progress)
    results = json.loads(path.read_text(encoding="utf-8"))
    counts = ", ".join(f"{name} {count}" for name, count in results["counts"].items())
    console.print(f"questions: {counts}", highlight=False, markup=False, soft_wrap=True)
    table = Table(title=f"bridge decoded, {results['counts']['read']} questions (95 % intervals)")
    table.add_column("condition")
    for heading in ("somewhere, %", "of labels, %", "trained minus it, points"):
        table.add_column(heading, justify="right")
    for one in results["conditions"]:
        name = one["condition"]
        cells = [_percent(one["decoded"], 1), _percent(one["share_of_labels"], 2)]
        cells.append(_percent(results["trained minus"].get(name), 1))
        table.add_row(name, *cells, style="bold" if name == results["lead"] else "")
    console.print(table)
    page = folder / "bridge.html"
    write_bridge_page(page, results, folder / "rows.jsonl")
    console.print(f"heat-maps: {page}", highlight=False, markup=False)
    if isinstance(given, TranslatedBridge):
        row = question_row(given, results, folder)
        figure = published_file(given, folder, "heatmap_q{}.png")
        write_question_heat_map(figure, row)
        for file in (*write_published_bridge(given, row, folder), figure):
            console.print(f"published format: {file}", highlight=False, markup=False)
    return path


def _percent(found: dict[str, Any] | None, digits: int) -> str:
    if found is None:
        return "–"
    mean, low, high = (100 * found[key] for key in ("mean", "low", "high"))
    return f"{mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
