"""A reading in the terminal: tokens down, some of its layers across."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from selfie_adapters.commands.printing import print_note
from selfie_adapters.output import EMPTY, REPEATS, SILENT, visible

if TYPE_CHECKING:
    from selfie_adapters.reading.read import Cell, Reading

_ROWS, _COLUMNS = 60, 5


def show_reading(
    console: Console, reading: Reading, find: str = "", show_withheld: bool = False
) -> None:
    """The labels, the logit lens's words under them where there are some, and what the marks mean.

    reading: its control is not read, and may be missing. find: a word; labels that name it are
    marked. show_withheld: labels of silent cells too.
    """
    from selfie_adapters.reading.display import token_text
    from selfie_adapters.report.reading_page import names_word

    plan = reading.plan
    step = max(1, -(-len(plan.layers) // _COLUMNS))
    layers = plan.layers[::-1][::step][::-1]  # the last one is always among them
    cells = {(cell.layer, cell.position): cell for cell in reading.cells}
    table = Table(box=None, pad_edge=False)
    table.add_column("token", no_wrap=True, justify="right", width=16)
    for layer in layers:
        width = max(8, (console.width - 16) // len(layers) - 1)
        table.add_column(f"layer {layer}", no_wrap=True, max_width=width)
    for position in plan.positions[:_ROWS]:
        row = [Text(token_text(plan.tokens[position]), style="bold")]
        row += [_shown(cells[layer, position], find, show_withheld) for layer in layers]
        table.add_row(*row)
    console.print(table)
    notes = []
    if len(layers) < len(plan.layers):
        notes.append(f"{len(layers)} of {len(plan.layers)} layers")
    if len(plan.positions) > _ROWS:
        notes.append(f"{_ROWS} of {len(plan.positions)} tokens")
    if notes:
        print_note(console, f"shown: {', '.join(notes)}")
    for line in _legend(reading, show_withheld):
        print_note(console, line)
    if find:
        found = sum(
            names_word(cell.label, find)
            for cell in reading.cells
            if show_withheld or cell.withheld is None
        )
        console.print(Text(f'{found} cells name "{visible(find)}"'))


def _shown(cell: Cell, find: str, show_withheld: bool) -> Text:
    from selfie_adapters.report.reading_page import names_word

    if cell.withheld is not None and not show_withheld:
        text = Text(SILENT, style="dim")
    else:
        # Without a calibration, a gain of 0 or less is all there is to doubt a label by.
        doubted = cell.withheld is not None or (cell.confidence is None and not cell.gain > 0)
        style = "bold yellow" if names_word(cell.label, find) else "dim" if doubted else ""
        text = Text(visible(cell.label) or EMPTY, style=style)
        if cell.repeats:
            text.append(f" {REPEATS}", style="dim")
        if cell.explained is not None:
            text.append(f" {cell.explained:.0%}", style="dim")
        for one in cell.further:
            if show_withheld or one.withheld is None:
                text.append(f" + {visible(one.label) or EMPTY} {one.explained:.0%}", style="dim")
    if cell.lens is not None:
        text.append(f"\n{visible(cell.lens) or EMPTY}", style="dim italic")
    return text


def _legend(reading: Reading, show_withheld: bool) -> list[str]:
    """One line for each kind of mark that the reading has."""
    lines = []
    counts = {
        why: count
        for why in ("no concept", "below threshold")
        if (count := sum(cell.withheld == why for cell in reading.cells))
    }
    if counts:
        listed = ", ".join(f"{count} {why}" for why, count in counts.items())
        mark = "dim" if show_withheld else SILENT
        lines.append(f"{mark} withheld ({listed})" + _how(show_withheld))
    if any(cell.repeats for cell in reading.cells):
        lines.append(f"{REPEATS} repeats only words of the text before its token")
    if any(cell.explained is not None for cell in reading.cells):
        lines.append("%: share of the state that its label explains; +: further concepts")
    if any(cell.lens is not None for cell in reading.cells):
        lines.append("second line of a cell: the logit lens's word")
    return lines


def _how(show_withheld: bool) -> str:
    return "" if show_withheld else "; --show-withheld shows them"
