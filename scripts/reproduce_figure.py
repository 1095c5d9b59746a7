"""From the results of reproduce.py to one figure: each kind of adapter, alongside its controls."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from selfie_adapters.files import atomic_path
from selfie_adapters.report.figures import CONTROL, TRAINED

Found = dict[str, Any]
_TITLE: dict[str, Any] = {"fontsize": 9, "loc": "left"}
MARKS = {"zero": "o", "shuffled": "s", "random": "D", "untrained": "^"}


def draw_figure(folder: Path) -> Path:
    """Write figure.png from the files in `folder`; returns its path."""
    about = _read(folder / "about.json")
    kinds, shown = [*about["parameters"]], about["shown"]
    figure = Figure(figsize=(11, 6), layout="constrained")
    panels = figure.subplots(2, 2)
    for axes, trained_on in zip(panels[0], ("topics", "sae"), strict=True):
        _loss(axes, folder, kinds, trained_on)
    _retrieval(panels[1][0], folder, kinds, shown)
    _scoring(panels[1][1], folder, kinds, shown)
    for axes in panels.flat:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=9)
        axes.invert_yaxis()
    path = folder / "figure.png"
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    return path


def _loss(axes: Axes, folder: Path, kinds: Sequence[str], trained_on: str) -> None:
    cells = _read(folder / f"loss-{trained_on}/results.json")["cells"]
    own = {cell["adapter"]: cell["loss"] for cell in cells if cell["dataset"] == trained_on}
    trained = [kind for kind in kinds if kind in own]
    for control, mark in MARKS.items():
        _points(axes, trained, [own[kind][control] for kind in trained], CONTROL, mark, control)
    _points(axes, trained, [own[kind]["trained"] for kind in trained], TRAINED, "o", "trained")
    axes.set_title(f"loss of held-out labels, trained on {trained_on} (lower is better)", **_TITLE)
    axes.legend(frameon=False, fontsize=8)


def _retrieval(axes: Axes, folder: Path, kinds: Sequence[str], shown: str) -> None:
    conditions = _read(folder / "retrieval/results.json")["conditions"]
    found = {one["condition"]: one["recall_at"]["10"] for one in conditions}
    controls = {name: f"{shown}: {name}" for name in ("zero vector", "shuffled", "random")}
    controls["untrained"] = "untrained"
    _bars(axes, kinds, controls, {k: found[k] for k in [*kinds, *controls.values()]})
    axes.set_title("retrieval, recall at 10 (higher is better)", **_TITLE)


def _scoring(axes: Axes, folder: Path, kinds: Sequence[str], shown: str) -> None:
    found, controls = {}, {}
    for kind in kinds:
        for name, one in _read(folder / f"scoring-{kind}/results.json")["conditions"].items():
            score = one["content"]["thresholds"][0]["balanced_accuracy"]
            if name == "trained":
                found[kind] = score
            elif kind == shown:
                controls[name] = f"{kind}: {name}"
                found[controls[name]] = score
    _bars(axes, kinds, controls, found)
    axes.axvline(0.5, color="#333333", linewidth=0.8, linestyle=":")
    axes.set_xlim(left=0.4)
    axes.set_title("generation scoring, balanced accuracy (chance: 0.5)", **_TITLE)


def _bars(
    axes: Axes, kinds: Sequence[str], controls: Mapping[str, str], found: Mapping[str, Found]
) -> None:
    """Kinds in blue, then the controls of one of them in gray."""
    names = [*kinds, *controls]
    intervals = [found[controls.get(name, name)] for name in names]
    colors = [TRAINED] * len(kinds) + [CONTROL] * len(controls)
    means, spread = _spread(intervals)
    axes.barh(names, means, xerr=spread, color=colors, capsize=2)


def _points(
    axes: Axes,
    names: Sequence[str],
    intervals: Sequence[Found],
    color: str,
    mark: str,
    label: str,
) -> None:
    means, spread = _spread(intervals)
    axes.errorbar(
        means, names, xerr=spread, fmt=mark, color=color, label=label, capsize=2, markersize=5
    )


def _spread(intervals: Sequence[Found]) -> tuple[list[float], list[list[float]]]:
    means = [one["mean"] for one in intervals]
    below = [one["mean"] - one["low"] for one in intervals]
    above = [one["high"] - one["mean"] for one in intervals]
    return means, [below, above]


def _read(path: Path) -> Found:
    return json.loads(path.read_text(encoding="utf-8"))
