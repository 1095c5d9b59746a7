"""What commands print: lines, tables, and JSON in their place. Strings from outside are made
visible and are never markup."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console

from selfie_adapters.output import json_line, visible

if TYPE_CHECKING:
    from rich.table import Table


def print_json(values: Iterable[Any]) -> None:
    """One JSON value per line on standard output."""
    for value in values:
        sys.stdout.write(json_line(value) + "\n")


def print_line(text: str, console: Console | None = None, style: str | None = None) -> None:
    """One line, which the terminal alone wraps: paths and names can be copied from it."""
    console = Console() if console is None else console
    console.print(visible(text), style=style, highlight=False, markup=False, soft_wrap=True)


def print_columns(
    rows: Sequence[Sequence[str]],
    console: Console | None = None,
    heading: Sequence[str] | None = None,
) -> None:
    """Rows aligned, and never cut: names are there to be copied."""
    every = [*([] if heading is None else [heading]), *rows]
    widths = [max(map(len, column)) for column in zip(*every, strict=True)]
    for row in every:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print_line("  ".join(cells).rstrip(), console, "bold" if row is heading else None)


def print_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    title: str | None = None,
    console: Console | None = None,
    **looks: Any,
) -> None:
    """Rows under their headings; the line "none" if there are none. looks: of `rich_table`."""
    console = Console() if console is None else console
    console.print(rich_table(columns, rows, title, **looks))
    if not rows:
        console.print("  none", style="dim")


def rich_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    title: str | None = None,
    caption: str | None = None,
    names: int | None = None,
    bold: Collection[str] = (),
    **looks: Any,
) -> Table:
    """names: how many columns are text; the others are numbers, at the right. None: all are text.
    bold: rows that begin with one of these. looks: further arguments of rich's Table."""
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=None if title is None else Text(visible(title)),
        caption=None if caption is None else Text(visible(caption)),
        title_justify="left",
        **looks,
    )
    for number, column in enumerate(columns):
        right = names is not None and number >= names
        heading = Text(visible(column))
        table.add_column(heading, justify="right" if right else "left", overflow="fold")
    for row in rows:
        style = "bold" if bold and row[0] in bold else ""
        table.add_row(*(Text(visible(str(cell), keep="\n")) for cell in row), style=style)
    return table


def print_note(console: Console, text: str) -> None:
    """A dim line that explains what was printed above it."""
    console.print(text, style="dim", highlight=False, markup=False)
