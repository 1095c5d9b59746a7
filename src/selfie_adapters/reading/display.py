"""How tokens and labels of a reading look, and a reading as one HTML table for notebooks."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING

from selfie_adapters.output import EMPTY, REPEATS, SILENT, visible
from selfie_adapters.reading.plan import PromptToken

if TYPE_CHECKING:
    from selfie_adapters.reading.read import Cell, Reading

FULL_GAIN = 3.0
"""Gain in nats per token that has full color where there is no calibration."""

_CELLS = 5_000  # in one table; a notebook with more of them becomes slow


def token_text(token: PromptToken) -> str:
    """The token with nothing invisible in it; a space before it is a dot."""
    text = visible(token.text)
    return "·" + text[1:] if text.startswith(" ") else text


def reading_table(reading: Reading) -> str:
    """The reading as HTML without scripts, style sheets or links: tokens across, layers up.

    Color is the confidence, or else the gain. Of a long prompt the first 5,000 cells are shown.
    """
    plan = reading.plan
    positions = plan.positions[: max(1, _CELLS // max(1, len(plan.layers)))]
    cells = {(cell.layer, cell.position): cell for cell in reading.cells}
    rows = [
        f"<tr><th>{layer}</th>{''.join(_cell(cells.get((layer, at))) for at in positions)}</tr>"
        for layer in reversed(plan.layers)
    ]
    heads = "".join(
        f"<th><bdi>{escape(token_text(plan.tokens[at]))}</bdi></th>" for at in positions
    )
    omitted = len(plan.positions) - len(positions)
    note = f"<p>{omitted} more tokens are not shown.</p>" if omitted else ""
    return (
        '<div style="overflow-x:auto"><table><tbody>'
        f"{''.join(rows)}</tbody><tfoot><tr><th>layer</th>{heads}</tr></tfoot></table></div>{note}"
    )


def _cell(cell: Cell | None) -> str:
    if cell is None:
        return "<td></td>"
    if cell.withheld is not None:
        return f'<td title="withheld: {escape(cell.withheld)}">{SILENT}</td>'
    share, title = cell.confidence, "confidence"
    if share is None:
        share, title = cell.gain / FULL_GAIN, "gain"
    if not math.isfinite(share):
        share = 0.0
    alpha = 0.6 * min(1.0, max(0.0, share))  # the text stays readable on dark pages too
    value = f"{cell.confidence:.0%}" if title == "confidence" else f"{cell.gain:.2f} nats per token"
    if cell.explained is not None:
        value += f", explains {cell.explained:.0%}"
    text = escape(visible(cell.label) or EMPTY) + (f" {REPEATS}" if cell.repeats else "")
    lens = (
        ""
        if cell.lens is None
        else f"<br><small><i>{escape(visible(cell.lens) or EMPTY)}</i></small>"
    )
    return (
        f'<td style="background:rgba(11,107,116,{alpha:.2f})" title="{title} {value}">'
        f"<bdi>{text}</bdi>{lens}</td>"
    )
