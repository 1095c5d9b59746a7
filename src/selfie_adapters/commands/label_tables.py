"""What `selfie label` prints of its labels: how the controls scored, why a label was chosen."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from selfie_adapters.output import visible

_EXPLAINED = 5  # vectors that --explain shows


def show_controls(console: Console, folder: Path) -> None:
    """How the run's own vectors and the controls scored; nothing if that is not known."""
    from selfie_adapters.labelling.run_record import read_controls

    rows = read_controls(folder)
    if rows is None:
        return
    table = Table(title="Controls: means of each vector's best label")
    for heading in ("vectors", "how many", "gain, nats per token"):
        table.add_column(heading)
    sure = any(row.confidence is not None for row in rows)
    if sure:
        table.add_column("confidence")
        table.add_column("shown as a concept")
    table.add_column("one of the labels")
    for row in rows:
        cells = [_shown(row.kind), str(row.vectors), f"{row.gain:.2f}"]
        if sure:
            cells.append("" if row.confidence is None else f"{row.confidence:.2f}")
            cells.append("" if row.concepts is None else f"{row.concepts} of {row.vectors}")
        table.add_row(*cells, _shown(row.example))
    console.print(table)


def show_why(console: Console, shard: Path) -> None:
    """The candidates of the first few vectors, best first, with what ranked them."""
    from selfie_adapters.labelling.rows import LabelRow, name_text, read_rows

    labelled = (
        (name, [row for row in rows if isinstance(row, LabelRow)])
        for name, rows in read_rows(shard).items()
    )
    for name, ranked in islice(((name, rows) for name, rows in labelled if rows), _EXPLAINED):
        table = Table(title=_shown(name_text(name)))
        headings = ("label", "gain", "log p, vector", "log p, zero")
        for heading in (*headings, "tokens", "agreement", "margin", "scale"):
            table.add_column(heading)
        for row in ranked:
            table.add_row(
                _shown(row.label),
                f"{row.gain:.2f}",
                f"{row.log_prob:.2f}",
                f"{row.zero_log_prob:.2f}",
                str(row.tokens),
                f"{row.agreement if isinstance(row.agreement, float) else 1:.0%}",
                f"{row.margin:+.2f}" if isinstance(row.margin, float) else "",
                f"{row.scale:g}",
            )
        console.print(table)


def _shown(text: str) -> str:
    return escape(visible(text))
