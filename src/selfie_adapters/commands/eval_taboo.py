"""`selfie eval taboo`: what a model says of topics when asked, beside what vectors say."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console

from selfie_adapters.commands.eval_retrieval import print_comparisons, print_conditions
from selfie_adapters.commands.progress import steps_shown
from selfie_adapters.evaluation.retrieval.embedding import require_embedder
from selfie_adapters.evaluation.taboo.protocol import DESCRIPTION, run_taboo
from selfie_adapters.evaluation.taboo.protocol import TabooSettings as Settings
from selfie_adapters.output import visible

__all__ = ["Settings", "run"]


def run(settings: Settings, folder: Path, console: Console) -> Path:
    """Run the protocol and print its tables."""
    require_embedder(settings.embedder, "selfie eval taboo")
    with steps_shown(console) as progress:
        path = run_taboo(settings, folder, progress=progress)
    results = json.loads(path.read_text(encoding="utf-8"))
    counts = results["counts"]
    title = f"{counts['asked']} descriptions among {counts['topics']} topics (95 % intervals)"
    print_conditions(console, title, results["conditions"], {DESCRIPTION})
    line = f"{results['answers_with_the_name']} of {counts['asked']} answers had the name in them"
    console.print(visible(line), highlight=False, markup=False)
    print_comparisons(console, results["comparisons"])
    return path
