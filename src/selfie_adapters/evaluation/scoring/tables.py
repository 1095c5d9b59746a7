"""What is printed of generation scoring's results.json."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from selfie_adapters.evaluation.baselines import not_measured_line
from selfie_adapters.evaluation.comparing import MeasureColumn, difference_tables
from selfie_adapters.evaluation.control_labels import COSINE_WORDS, LENS_WORDS, RIDGE_WORDS
from selfie_adapters.evaluation.same_start import SAME_START
from selfie_adapters.evaluation.tables import Table

TITLES = {
    "trained": "trained",
    "shuffled": "another's",
    "untrained": "untrained",
    "zero": "zero vector",
    "random": "random",
    "lens_words": LENS_WORDS,
    "cosine_words": COSINE_WORDS,
    "ridge_words": RIDGE_WORDS,
    "same_start": SAME_START,
    "training": "instrument check",
}
"""The given labels of the file are no rival: they show whether the instrument can tell labels
apart at all."""
_COLUMNS = {
    "balanced_accuracy": MeasureColumn("balanced accuracy", 2, 1),
    "auroc": MeasureColumn("AUROC", 2, 1),
}


def report(results: Mapping[str, Any]) -> Iterator[Table | str]:
    """The scores by condition, and what the first one has more than the others."""
    settings, rows = results["settings"], []
    conditions = results.get("conditions", {})
    for name, found in conditions.items():
        content = found["content"]["thresholds"][0]
        cells = [
            found["published"]["best_of_n"],
            content["best_of_1"],
            content["best_of_n_held_out"],
            content["false_positive_rate"],
            content["balanced_accuracy"],
            found["content"]["auroc"],
        ]
        rows.append([TITLES[name], *map(_two_lines, cells)])
    best = f"best of {len(settings['scales'])}"
    if rows:
        yield Table(
            "",
            ["labels", "published", "one label", best, "false", "balanced", "AUROC"],
            rows,
            {TITLES["trained"]},
            caption="means and 95 % intervals over latents; published: template tokens count "
            "too; best: chosen on half of the conversations, scored on the others; a hit is an "
            f"activation above {settings['thresholds'][0]:g}; instrument check: the labels of "
            "labels_file, which fire their latents if the measurement works"
            + _same_start_note(results),
            narrow=True,
        )
    # Results of earlier releases have no comparisons.
    yield from difference_tables(results.get("comparisons", []), _COLUMNS, names=TITLES)
    yield from not_measured_line(results)


def _same_start_note(results: Mapping[str, Any]) -> str:
    if (found := results["conditions"].get("same_start")) is None:
        return ""
    return (
        f"; {SAME_START}: labels of something else that begin as the latent's does, of "
        f"{found['counts']['latents']} of {len(results['latents'])} latents"
    )


def _two_lines(interval: dict[str, Any] | None) -> str:
    """Narrow enough for 80 columns."""
    if interval is None:
        return "–"
    return f"{interval['mean']:.2f}\n{interval['low']:.2f}–{interval['high']:.2f}"
