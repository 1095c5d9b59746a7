"""Figures: as SVG text for pages that need no other file, or as PNG files."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfie_adapters.extras import extra
from selfie_adapters.files import atomic_path
from selfie_adapters.training.run_reading import read_run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from selfie_adapters.evaluation.naming.results import Panel
    from selfie_adapters.statistics import Interval

# Blue for what was trained, gray for its baselines; distinguishable without color, too.
TRAINED, CONTROL = "#2563a8", "#a3a8ae"


def loss_curve(
    steps: Sequence[int], losses: Sequence[float], validations: Sequence[tuple[int, float]]
) -> str:
    """Training loss per step and validation losses, nats per token."""
    return _svg(loss_figure(steps, losses, validations))


def loss_figure(
    steps: Sequence[int], losses: Sequence[float], validations: Sequence[tuple[int, float]]
) -> Figure:
    """The figure behind `loss_curve`. Raises MissingExtraError without matplotlib."""
    figure, axes = _figure(4.6, 2.8)
    axes.plot(steps, losses, color=CONTROL, linewidth=1, label="training batch")
    if validations:
        x, y = zip(*validations, strict=True)
        axes.plot(x, y, "o-", color=TRAINED, label="held-out labels")
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("loss, nats per token")
    axes.legend(frameon=False)
    return figure


def write_loss_curve(folder: str | Path) -> Path | None:
    """Draw `loss_curve.png` in a run folder from its metrics.jsonl; None if there is no curve.

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


def condition_bars(panels: Mapping[str, Sequence[tuple[str, Interval, Interval]]]) -> str:
    """Shares of labels by condition, a panel per block and position, the adapter's bars in blue.

    panels: by title; (condition, share right, share right or related) from top to bottom. A solid
    bar is the share that is right, with its 95 % interval, the pale one behind it what is right or
    related. Panels are one below the other and narrow, so that they can be read on a phone.
    """
    figure, found = _figure(4.6, 0.6 + 2.3 * len(panels), rows=len(panels))
    every = [found] if len(panels) == 1 else list(found)
    for axes, (title, bars) in zip(every, panels.items(), strict=True):
        names = [name for name, _, _ in bars]
        colors = [TRAINED if name == "adapter" else CONTROL for name in names]
        right = [share for _, share, _ in bars]
        spread = [[one.mean - one.low for one in right], [one.high - one.mean for one in right]]
        axes.barh(names, [share.mean for _, _, share in bars], color=colors, alpha=0.4)
        axes.barh(names, [one.mean for one in right], xerr=spread, color=colors, capsize=2)
        axes.invert_yaxis()
        axes.set_xlim(0, 1)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100 %"])
        axes.set_title(title, fontsize=9, loc="left")
    every[-1].set_xlabel("right (solid), right or related (pale)", fontsize=9)
    return _svg(figure)


def reliability_diagram(bins: Sequence[dict[str, float]]) -> str:
    """Share of labels that are right against their predicted probability, bin by bin."""
    figure, axes = _figure(4.2, 4.0)
    axes.plot([0, 1], [0, 1], color=CONTROL, linewidth=1, linestyle=":", label="calibrated")
    predicted = [one["predicted"] for one in bins]
    right = [one["right"] for one in bins]
    axes.plot(predicted, right, "o-", color=TRAINED, label="held-out labels")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_xlabel("confidence (mean of the bin)")
    axes.set_ylabel("share that is right")
    axes.legend(frameon=False)
    return _svg(figure)


def heat_map(
    share: Sequence[Sequence[float]], layers: Sequence[int], columns: Sequence[str], across: str
) -> str:
    """share: layers × columns, 0 to 1; the lowest layer is at the bottom.

    columns: what is written under each; across: what they are.
    """
    return _svg(heat_map_figure(share, layers, columns, across))


def heat_map_figure(
    share: Sequence[Sequence[float]], layers: Sequence[int], columns: Sequence[str], across: str
) -> Figure:
    """The figure behind `heat_map`. Raises MissingExtraError without matplotlib."""
    figure, axes = _figure(2.5 + 0.28 * len(columns), 2.0 + 0.13 * len(layers))
    top = max(max(map(max, share)), 1e-9)
    image = axes.imshow(share, origin="lower", aspect="auto", cmap="Blues", vmin=0, vmax=top)
    step = max(1, len(layers) // 12)
    axes.set_yticks(range(0, len(layers), step), [str(layer) for layer in layers[::step]])
    axes.set_xticks(range(len(columns)), columns, rotation=60, ha="right", rotation_mode="anchor")
    axes.set_ylabel("layer")
    axes.set_xlabel(across)
    figure.colorbar(image, ax=axes, label="share of labels")
    return figure


def loss_matrix(
    rows: Sequence[str], columns: Sequence[str], losses: Sequence[Sequence[float]]
) -> str:
    """Held-out loss of every adapter (a row) on every data set (a column), nats per token.

    Darker is lower. Colors run over each column: data sets differ in how hard their labels are.
    """
    figure, axes = _figure(2.2 + 1.3 * len(columns), 1.0 + 0.45 * len(rows))
    by_column = list(zip(*losses, strict=True))
    lowest = [min(column) for column in by_column]
    spans = [(max(column) - min(column)) or 1.0 for column in by_column]
    places = range(len(columns))
    shades = [[(row[x] - lowest[x]) / spans[x] for x in places] for row in losses]
    axes.imshow(shades, cmap="Blues_r", vmin=0, vmax=1.25, aspect="auto")
    for y, row in enumerate(losses):
        for x, loss in enumerate(row):
            color = "white" if shades[y][x] < 0.5 else "black"
            axes.text(x, y, f"{loss:.3f}", ha="center", va="center", color=color, fontsize=9)
    axes.set_xticks(places, labels=columns)
    axes.set_yticks(range(len(rows)), labels=rows)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set_title("loss of held-out labels, nats per token", fontsize=9, loc="left")
    return _svg(figure)


# The adapter is emphasized; the others differ in dash and marker, too.
_STYLES = {
    "adapter": {"color": TRAINED, "marker": "o", "linewidth": 2.2},
    "logit lens": {"color": "#b4541a", "marker": "s", "linestyle": "--"},
    "ridge probe": {"color": "#5a6570", "marker": "^", "linestyle": "-."},
    "untrained": {"color": CONTROL, "marker": "x", "linestyle": ":"},
}
_SEVERAL = {"marker": "o", "linewidth": 2.2}
"""Each of several adapters, in a color of its own."""


def naming_by_block(panels: Sequence[Panel]) -> str:
    """Share of right and related labels by block, with 95 % intervals; a panel per position kind.

    Panels are one below the other and narrow, so that they can be read on a phone.
    """
    figure, found = _figure(4.6, 0.7 + 2.5 * len(panels), rows=len(panels))
    every = [found] if len(panels) == 1 else list(found)
    blocks = sorted({point[0] for one in panels for line in one.lines.values() for point in line})
    for axes, panel in zip(every, panels, strict=True):
        for name, points in panel.lines.items():
            layers, shares, lows, highs = zip(*points, strict=True)
            style: Any = {"markersize": 4, **_STYLES.get(name, _SEVERAL)}
            (line,) = axes.plot(layers, shares, label=name, **style)
            color = line.get_color()
            axes.fill_between(layers, lows, highs, color=color, alpha=0.15, linewidth=0)
        axes.set_title(panel.title, fontsize=9, loc="left")
        axes.set_ylim(0, 1)
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100 %"])
        axes.set_xticks(blocks)
        axes.set_ylabel("right or related", fontsize=9)
    every[-1].set_xlabel("block", fontsize=9)
    handles, names = every[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=2, frameon=False, fontsize=9)
    return _svg(figure)


def write_png(path: Path, figure: Figure) -> None:
    """Write the figure atomically; the same figure gives the same bytes."""
    with atomic_path(path) as temporary:
        # no version or date in the file
        figure.savefig(temporary, format="png", dpi=150, metadata={"Software": None})


def _figure(width: float, height: float, rows: int = 1):
    with extra("report", "Drawing figures"):
        from matplotlib.figure import Figure
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows)
    for one in [axes] if rows == 1 else axes:
        _plain(one)
    return figure, axes


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)


def _svg(figure: Figure) -> str:
    import matplotlib as mpl

    # A fixed salt and no date: the same numbers give the same bytes.
    with mpl.rc_context({"svg.hashsalt": "selfie", "svg.fonttype": "path"}):
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None}, transparent=True)
    svg = text.getvalue()
    return svg[svg.index("<svg") :]
