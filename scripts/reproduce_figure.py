"""From the results of reproduce.py to one figure: what is named by block, alongside baselines."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from selfie_adapters.evaluation.naming.results import naming_panels
from selfie_adapters.report.figures import CONTROL, TRAINED, write_png

Found = dict[str, Any]
Lines = Mapping[str, Sequence[tuple[int, float, float, float]]]
"""Name of a line → (block, share, low, high)."""
_COLORS = {
    "adapter": TRAINED,
    "trained": TRAINED,
    "logit lens": "#b4541a",
    "ridge probe": "#5a6570",
}
_BRIDGES = {
    "bridge": "mean of block and position kind subtracted",
    "bridge_of_questions": "mean of the category's other questions subtracted",
}


def draw_figure(folder: Path) -> Path | None:
    """Write figure.png from the results in `folder`; None where there are none that it shows.

    Names of nouns by block, a panel per position; then what is named of two-hop questions by the
    adapter, with the base rate of the bridge.
    """
    panels: list[tuple[str, Lines]] = []
    if (naming := _results(folder / "naming")) is not None:
        panels += [(f"nouns, {one.title}", one.lines) for one in naming_panels(naming, "exact")]
    for name, title in _BRIDGES.items():
        if (found := _results(folder / name)) is not None:
            panels.append((f"two-hop questions, {title}", _bridge(found)))
    if not panels:
        return None
    figure = Figure(figsize=(8.0, 0.5 + 2.6 * len(panels)), layout="constrained")
    every = figure.subplots(len(panels), 1, squeeze=False)[:, 0]
    for axes, (title, lines) in zip(every, panels, strict=True):
        _draw(axes, title, lines)
    every[-1].set_xlabel("block", fontsize=9)
    path = folder / "figure.png"
    write_png(path, figure)
    return path


def _bridge(results: Found) -> Lines:
    """What the lead condition names, by block, and how often it names other questions' bridges."""
    lines: dict[str, list[tuple[int, float, float, float]]] = {}
    for one in results["targets"]:
        if one["condition"] != results["lead"]:
            continue
        name = "entity at its own tokens" if one["target"] == "entity" else one["target"]
        lines[name] = _points(one["by_layer"], "named")
        if one["target"] == "bridge":
            lines["other bridges (base rate)"] = _points(one["by_layer"], "base")
    return lines


def _points(by_layer: Found, which: str) -> list[tuple[int, float, float, float]]:
    return [
        (int(layer), *(one[which][key] for key in ("mean", "low", "high")))
        for layer, one in by_layer.items()
    ]


def _draw(axes: Axes, title: str, lines: Lines) -> None:
    marks = iter("os^xDv")
    for name, points in lines.items():
        layers, shares, lows, highs = zip(*points, strict=True)
        color = _COLORS.get(name, CONTROL if "base rate" in name or name == "untrained" else None)
        (line,) = axes.plot(layers, shares, label=name, color=color, marker=next(marks), ms=4)
        axes.fill_between(layers, lows, highs, color=line.get_color(), alpha=0.1, linewidth=0)
    axes.set_title(title, fontsize=9, loc="left")
    axes.set_ylim(0, 1)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100 %"])
    axes.set_ylabel("named", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)
    axes.set_xticks(sorted({point[0] for points in lines.values() for point in points}))
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))


def _results(folder: Path) -> Found | None:
    path = folder / "results.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
