"""`selfie eval retrieval`: labels find their topics among all topics."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from selfie_adapters.commands.progress import steps_shown
from selfie_adapters.config.evaluation.retrieval import RetrievalSettings as Settings
from selfie_adapters.evaluation.retrieval.embedding import require_embedder
from selfie_adapters.evaluation.retrieval.protocol import run_retrieval
from selfie_adapters.output import visible

__all__ = ["Settings", "print_conditions", "run"]


def run(settings: Settings, folder: Path, console: Console) -> Path:
    """Run the protocol and print its tables."""
    require_embedder(settings.embedder, "selfie eval retrieval")
    with steps_shown(console) as progress:
        path = run_retrieval(settings, folder, progress=progress)
    results = json.loads(path.read_text(encoding="utf-8"))
    counts = results["counts"]
    title = f"{counts['queries']} labels among {counts['topics']} topics (95 % intervals)"
    print_conditions(console, title, results["conditions"], {*settings.adapters, *settings.labels})
    for name, tried in results["scales_chosen_on_training_vectors"].items():
        listed = ", ".join(f"{scale}: {value:.3f}" for scale, value in tried.items())
        line = f"scale of {name}, by mean reciprocal rank on training vectors: {listed}"
        console.print(visible(line), highlight=False, markup=False)
    print_comparisons(console, results["comparisons"])
    return path


def print_conditions(
    console: Console, title: str, conditions: Iterable[dict[str, Any]], bold: set[str]
) -> None:
    """The table of recalls; the conditions named in `bold` are what the others are set beside."""
    table = Table(title=title)
    table.add_column("condition")
    for heading in ("recall@1, %", "@10, %", "@100, %", "reciprocal rank", "median rank"):
        table.add_column(heading, justify="right")
    for one in conditions:
        recall = one["recall_at"]
        cells = [_interval(recall[k], 100, 1) for k in ("1", "10", "100")]
        cells += [_interval(one["mean_reciprocal_rank"], 1, 3), f"{one['median_rank']:g}"]
        table.add_row(
            escape(visible(one["condition"])),
            *cells,
            style="bold" if one["condition"] in bold else "",
        )
    console.print(table)


def print_comparisons(console: Console, comparisons: Iterable[dict[str, Any]]) -> None:
    """One line a pair of conditions."""
    for pair in comparisons:
        found = pair["difference"]["recall_at_1"]
        line = (
            f"{pair['first']} minus {pair['second']}, recall@1: {_interval(found, 100, 1)} points "
            f"({pair['first_ranks_higher']} and {pair['second_ranks_higher']} of "
            f"{pair['queries']} ranked higher)"
        )
        console.print(visible(line), highlight=False, markup=False, soft_wrap=True)


def _interval(found: dict[str, float], factor: float, digits: int) -> str:
    mean, low, high = (factor * found[key] for key in ("mean", "low", "high"))
    return f"{mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
