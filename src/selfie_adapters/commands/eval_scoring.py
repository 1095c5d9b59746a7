"""`selfie eval scoring`: do conversations written from a label fire the latent it is about?"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from selfie_adapters.commands.progress import steps_shown
from selfie_adapters.config.evaluation.scoring import ScoringSettings as Settings
from selfie_adapters.evaluation.published.results import write_published_results
from selfie_adapters.evaluation.published.scoring import TranslatedScoring, read_scoring_config
from selfie_adapters.evaluation.scoring.protocol import run_scoring
from selfie_adapters.extras import require_extra

__all__ = ["Settings", "read", "run"]


def read(
    config: Path, changes: Sequence[str], given: Mapping[str, Any]
) -> Settings | TranslatedScoring:
    """Settings from this project's own form of file or from a published one."""
    return read_scoring_config(config, changes, given)


def run(given: Settings | TranslatedScoring, folder: Path, console: Console) -> Path:
    """Run the protocol and print its table; of a published file, write its result files too."""
    settings = given.settings if isinstance(given, TranslatedScoring) else given
    if settings.evaluation_mode != "label_generation_only":
        require_extra("sae", "selfie eval scoring")
    with steps_shown(console) as progress:
        path = run_scoring(settings, folder, progress=progress)
    results = json.loads(path.read_text(encoding="utf-8"))
    if "conditions" in results:
        console.print(_table(results["conditions"], settings))
    if isinstance(given, TranslatedScoring):
        for file in write_published_results(given, folder):
            console.print(f"published format: {file}", highlight=False, markup=False)
    return path


_MEANING = {
    "trained": "trained",
    "shuffled": "another's",
    "untrained": "untrained",
    "zero": "zero vector",
    "random": "random",
    "training": "the file's",
}


def _table(conditions: dict[str, Any], settings: Settings) -> Table:
    """Means over their intervals; narrow enough for 80 columns."""
    table = Table(
        box=box.SIMPLE,
        pad_edge=False,
        collapse_padding=True,
        caption="means and 95 % intervals over latents; published: template tokens count too; "
        "best: chosen on half of the conversations, scored on the others; a hit is an activation "
        f"above {settings.thresholds[0]:g}",
    )
    best = f"best of {len(settings.scales)}"
    for column in ("labels", "published", "one label", best, "false", "balanced", "AUROC"):
        table.add_column(column)
    for name, found in conditions.items():
        content = found["content"]["thresholds"][0]
        table.add_row(
            _MEANING[name],
            _shown(found["published"]["best_of_n"]),
            _shown(content["best_of_1"]),
            _shown(content["best_of_n_held_out"]),
            _shown(content["false_positive_rate"]),
            _shown(content["balanced_accuracy"]),
            _shown(found["content"]["auroc"]),
        )
    return table


def _shown(interval: dict[str, Any] | None) -> str:
    if interval is None:
        return "–"
    return f"{interval['mean']:.2f}\n{interval['low']:.2f}–{interval['high']:.2f}"
