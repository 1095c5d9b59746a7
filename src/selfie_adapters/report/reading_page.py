"""A reading as one page: tokens across, layers up, color by how far to trust the label."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from selfie_adapters.adapters import Adapter
from selfie_adapters.labelling.confidence import Confidence
from selfie_adapters.output import visible
from selfie_adapters.reading.display import FULL_GAIN, token_text
from selfie_adapters.reading.plan import PromptToken, ReadingPlan
from selfie_adapters.reading.read import Cell, Reading
from selfie_adapters.report.page import write_page
from selfie_adapters.words import words_of

CELLS_ON_A_PAGE = 20_000
"""A browser stays quick up to here; `reading.json` holds the rest."""


def shown_token(token: PromptToken) -> dict[str, Any]:
    """A token for the page: its text with nothing invisible in it."""
    return {**asdict(token), "text": token_text(token)}


def shown_cell(cell: Cell) -> dict[str, Any]:
    """A cell for the page: invisible characters escaped, NaN and infinity as null."""
    return _shown(asdict(cell))


def _shown(value: Any) -> Any:
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _shown(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_shown(one) for one in value]
    return value


def measure(confidence: Confidence | None, random_gains: Sequence[float] = ()) -> dict[str, Any]:
    """What the color means: the calibrated confidence, or else the gain.

    zero: no color at or below it: the highest gain of the reading's random directions, where they
    were measured (reading/controls.py). full: full color. threshold: None where each layer and kind
    of position has its own. random: how many random directions there were.
    """
    if confidence is None:
        zero = max(0.0, *random_gains) if random_gains else 0.0
        count = len(random_gains)
        full = zero + FULL_GAIN
        return {"name": "gain", "zero": zero, "full": full, "threshold": 0.0, "random": count}
    threshold = None if confidence.places else confidence.threshold
    return {"name": "confidence", "zero": 0.0, "full": 1.0, "threshold": threshold, "random": 0}


def trained_layers(adapter: Adapter) -> list[int]:
    """Blocks whose outputs the adapter, or a specialist of it, was trained on, as far as its files
    state them."""
    own = adapter.binding.layer if adapter.binding else None
    layers = {layer for layer, _ in adapter.specialists if layer is not None}
    return sorted(layers | ({own} if own is not None else set()))


def page_frame(plan: ReadingPlan) -> dict[str, Any]:
    """The grid without its labels: tokens, layers, positions that are read."""
    return {
        "tokens": [shown_token(token) for token in plan.tokens],
        "layers": list(plan.layers),
        "positions": list(plan.positions),
    }


def write_reading_page(
    path: str | Path,
    reading: Reading,
    facts: dict[str, str],
    confidence: Confidence | None = None,
    trained_layers: Sequence[int] = (),
    find: str = "",
    show_withheld: bool = False,
) -> int:
    """Write the page; returns how many of the reading's cells it does not hold.

    facts: how the reading was made, for the foot of the page. trained_layers: blocks
    whose outputs the adapter was trained on; the page opens there, at the last token. find: a word;
    cells whose label names it are marked. show_withheld: whether withheld labels are shown at
    first; a box on the page changes it.
    """
    plan = reading.plan
    random_gains = () if reading.control is None else reading.control.gains
    columns = max(1, CELLS_ON_A_PAGE // len(plan.layers))
    kept = set(plan.positions[:columns])
    cells = [cell for cell in reading.cells if cell.position in kept]
    frame = page_frame(plan)
    frame["positions"] = sorted(kept)
    last = max(kept) + 1 if len(kept) < len(plan.positions) else len(plan.tokens)
    frame["tokens"] = frame["tokens"][:last]
    left_out = len(reading.cells) - len(cells)
    start = plan.prompt[:2000] + ("…" if len(plan.prompt) > 2000 else "")
    write_page(
        path,
        "reading",
        {
            "prompt": "\n".join(map(visible, start.split("\n"))),
            "data": {
                **frame,
                "find": visible(find),
                "show_withheld": show_withheld,
                "readings": [
                    {
                        "name": "",
                        "measure": measure(confidence, random_gains),
                        "trained_layers": list(trained_layers),
                        "lens": any(cell.lens is not None for cell in cells),
                        "withholds": any(cell.withheld for cell in cells),
                        "cells": [shown_cell(cell) for cell in cells],
                    }
                ],
            },
            "calibrated": confidence is not None,
            "random": len(random_gains) if confidence is None else 0,
            "lens": any(cell.lens is not None for cell in cells),
            "facts": {key: visible(value) for key, value in facts.items()},
            "left_out": left_out,
        },
    )
    return left_out


def names_word(label: str, word: str) -> bool:
    """Whether `label` holds `word` (one or several words) as whole words; letter case and a plural
    s make no difference."""
    padded = f" {' '.join(words_of(label))} "
    sought = " ".join(words_of(word))
    return bool(sought) and f" {sought} " in padded
