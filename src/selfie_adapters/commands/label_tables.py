"""What `selfie label` prints of its labels: how the controls scored, why a label was chosen."""

from __future__ import annotations

import json
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from selfie_adapters.json_lines import read_jsonl

_EXPLAINED = 5  # vectors that --explain shows


def show_controls(console: Console, folder: Path) -> None:
    """How the run's own vectors and the controls scored."""
    rows = json.loads((folder / "controls.json").read_text(encoding="utf-8"))
    table = Table(title="Controls: means of each vector's best label")
    for heading in ("vectors", "how many", "score, nats a token"):
        table.add_column(heading)
    sure = bool(rows) and rows[0]["confidence"] is not None
    if sure:
        table.add_column("confidence")
        table.add_column("shown as a concept")
    table.add_column("one of the labels")
    for row in rows:
        cells = [row["kind"], str(row["vectors"]), f"{row['score']:.2f}"]
        if sure:
            cells += [f"{row['confidence']:.2f}", f"{row['concepts']} of {row['vectors']}"]
        table.add_row(*cells, _shown(row["example"]))
    console.print(table)


def show_why(console: Console, shard: Path) -> None:
    """The candidates of the first few vectors, best first, with what ranked them."""
    rows = (row for row in read_jsonl(shard) if "error" not in row)
    for _, candidates in islice(groupby(rows, _name), _EXPLAINED):
        ranked = list(candidates)
        table = Table(title=escape(_name(ranked[0])))
        headings = ("label", "score", "log p, vector", "log p, zero")
        for heading in (*headings, "tokens", "agreement", "margin", "scale"):
            table.add_column(heading)
        for row in ranked:
            margin = row.get("margin")
            table.add_row(
                _shown(row["label"]),
                f"{row['score']:.2f}",
                f"{row['log_prob']:.2f}",
                f"{row['zero_log_prob']:.2f}",
                str(row["tokens"]),
                f"{row.get('agreement', 1):.0%}",
                "" if margin is None else f"{margin:+.2f}",
                f"{row['scale']:g}",
            )
        console.print(table)


def _shown(text: str) -> str:
    """A label fit for a terminal: what would move the cursor or change colours is made visible."""
    return escape("".join(c if c.isprintable() else "�" for c in text))


def _name(row: dict[str, Any]) -> str:
    return f"{row['dataset']} {row['index']}" if "dataset" in row else f"row {row['index']}"
