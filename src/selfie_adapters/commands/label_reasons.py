"""`selfie label --explain`: the labels that were generated for a vector, and what ranked them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from selfie_adapters.output import EMPTY, visible

if TYPE_CHECKING:
    from selfie_adapters.labelling.rows import LabelRow

_EXPLAINED = 5  # vectors


def show_why(console: Console, shard: Path) -> None:
    """The labels of the first few vectors, best first; labels with one text are one row."""
    from selfie_adapters.labelling.rows import LabelRow, name_text, read_rows

    found = (
        (name_text(name), [row for row in rows if isinstance(row, LabelRow)])
        for name, rows in read_rows(shard).items()
    )
    shown = list(islice(((name, rows) for name, rows in found if rows), _EXPLAINED))
    several = any(len(rows) > 1 for _, rows in shown)
    scales = len({row.scale for _, rows in shown for row in rows}) > 1
    for name, rows in shown:
        given = rows[0].given
        title = Text(visible(name), "bold")
        if isinstance(given, str):
            title.append(f', given "{visible(given)}"', "not bold")
        console.print(title, soft_wrap=True)
        console.print(_table(rows, several, scales))
    if shown:
        console.print(
            "p: nats per token, given the vector, and after the zero vector; gain: their "
            "difference"
            + ("; most likely first; margin: in nats, over the best other." if several else "."),
            style="dim",
            highlight=False,
        )


def same_text(rows: Sequence[LabelRow]) -> Iterator[list[LabelRow]]:
    """Rows whose labels have one text, case and whitespace aside, together; in order of the first
    of each."""
    from selfie_adapters.words import plain

    groups: dict[str, list[LabelRow]] = {}
    for row in rows:
        groups.setdefault(plain(row.label), []).append(row)
    yield from groups.values()


def _table(rows: Sequence[LabelRow], several: bool, scales: bool) -> Table:
    """A row per text, with the numbers of the first label of it."""
    table = Table(box=None, pad_edge=False, expand=True)
    table.add_column("label", ratio=1, overflow="fold")
    headings = [
        *(["times"] if several else []),
        *("gain", "p vector", "p zero", "tokens"),
        *(["margin"] if several else []),
        *(["scale"] if scales else []),
    ]
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for group in same_text(rows):
        row = group[0]
        margin = f"{row.margin:+.2f}" if isinstance(row.margin, float) else ""
        table.add_row(
            Text(visible(row.label) or EMPTY),
            *([f"{len(group)}"] if several else []),
            f"{row.gain:.2f}",
            f"{row.log_prob / max(1, row.tokens):.2f}",
            f"{row.zero_log_prob / max(1, row.tokens):.2f}",
            str(row.tokens),
            *([margin] if several else []),
            *([f"{row.scale:g}"] if scales else []),
        )
    return table
