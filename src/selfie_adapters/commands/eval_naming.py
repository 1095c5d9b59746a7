"""`selfie eval naming`: does an adapter name the concepts of held-out vectors, block by block?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from selfie_adapters.config.evaluation.naming import NamingSettings
from selfie_adapters.errors import ConfigError, MissingExtraError
from selfie_adapters.files import write_text
from selfie_adapters.output import visible

FIGURE = "naming.svg"


def prepare(settings: NamingSettings) -> NamingSettings:
    """The settings with the adapter that is the default for their model.

    Raises ConfigError if there is none, and what `check_inputs` raises.
    """
    from selfie_adapters.adapters.locating import usual_adapter
    from selfie_adapters.commands.checking import check_inputs

    if (named := usual_adapter(settings.adapter, settings.model)) is None:
        raise ConfigError(
            f"selfie eval naming with {settings.model} needs --adapter FILE: one that was trained "
            "for this model."
        )
    check_inputs(adapters=[named], files=[settings.source])
    return settings.model_copy(update={"adapter": named})


def run(settings: NamingSettings, folder: Path, console: Console) -> Path:
    """Run the protocol, print its tables and draw the figure."""
    from selfie_adapters.commands.progress import steps_shown
    from selfie_adapters.evaluation.naming.protocol import run_naming

    with steps_shown(console) as progress:
        path = run_naming(settings, folder, progress=progress)
    print_naming(console, json.loads(path.read_text(encoding="utf-8")))
    _draw(console, folder, path)
    return path


def print_naming(console: Console, results: dict[str, Any]) -> None:
    """A table per position kind, then the comparisons over all of its blocks."""
    from selfie_adapters.evaluation.naming.results import position_name

    for pooled in results["positions"]:
        sections = [one for one in results["sections"] if one["position"] == pooled["position"]]
        topics = pooled["conditions"][0]["topics"]
        table = Table(
            title=f"{position_name(pooled['position'])}, {topics} topics",
            caption="% name or synonym to the letter / % right or related",
            box=None,
        )
        columns = [*sections, pooled] if len(sections) > 1 else sections
        table.add_column("")
        for one in columns:
            table.add_column(f"block {one['layer']}" if "layer" in one else "all", justify="right")
        for row in zip(*(one["conditions"] for one in columns), strict=True):
            name = row[0]["condition"]
            style = "bold" if name == "adapter" else ""
            cells = [_cell(condition["share"]) for condition in row]
            table.add_row(escape(visible(name)), *cells, style=style)
        console.print(table)
        for line in _lines(pooled, sections):
            console.print(visible(line), highlight=False, markup=False, soft_wrap=True)
    if nulls := results["without_concept"]:
        shown = _percent(nulls["shown"])
        line = f"vectors without a concept that show a label: {shown} % of {nulls['vectors']}"
        console.print(line, highlight=False, markup=False)


def _cell(share: dict[str, Any]) -> str:
    return f"{100 * share['exact']['mean']:.0f} / {100 * share['right or related']['mean']:.0f}"


def _lines(pooled: dict[str, Any], sections: list[dict[str, Any]]) -> list[str]:
    share = pooled["conditions"][0]["share"]
    measures = {
        "exact": "to the letter",
        "right or related": "right or related",
        "shown": "shown",
        "right or related, of the shown": "right or related of those",
    }
    counted = (
        f"{_percent(share[name])} % {what}" for name, what in measures.items() if share[name]
    )
    lines = [f"adapter: {', '.join(counted)}"]
    if spelled := share["same first letter, of the wrong"]:
        lines.append(f"wrong labels with the name's first letter: {_percent(spelled)} %")
    pairs = [one for one in pooled["comparisons"] if one["measure"] == "right or related"]
    for beats, verb in ((True, "beats"), (False, "does NOT beat")):
        found = [
            f"{one['second']} {_percent(one['difference'], sign='+')}"
            for one in pairs
            if one["first_beats_second"] == beats
        ]
        if found:
            lines.append(f"adapter {verb}, in points right or related: {', '.join(found)}")
    for one in sections:
        for found in one["retrieval"]:
            same = " with the same first token" if found["control"] == "spelling" else ""
            first = ", ".join(
                f"{name} {100 * hits['mean']:.0f}" for name, hits in found["first"].items()
            )
            lines.append(
                f"block {one['layer']}, own name first of {found['candidates']:.0f}{same}, %: "
                f"{first} ({found['vectors']} vectors)"
            )
    return lines


def _percent(found: dict[str, float], sign: str = "") -> str:
    mean, low, high = (f"{100 * found[key]:{sign}.0f}" for key in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


def _draw(console: Console, folder: Path, path: Path) -> None:
    from selfie_adapters.evaluation.naming.results import naming_panels
    from selfie_adapters.report.figures import naming_by_block

    panels = naming_panels(json.loads(path.read_text(encoding="utf-8")))
    try:
        write_text(folder / FIGURE, naming_by_block(panels))
        console.print(f"figure: {folder / FIGURE}", highlight=False, markup=False)
    except MissingExtraError as error:
        console.print(f"no figure: {error}", style="yellow", highlight=False, markup=False)
