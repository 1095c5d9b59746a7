"""What the report of an evaluation is made of: tables, and intervals as text."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from selfie_adapters.statistics import Interval

_TWO_LINES = re.compile(r"^(\S+)\n(\S+)–(\S+)$")


@dataclass(frozen=True)
class Table:
    """A table that `report` yields: the first `names` columns are text, the others numbers.

    bold: first cells of the rows that are printed in bold. narrow: without a frame, for tables that
    must fit 80 columns.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    bold: Collection[str] = ()
    caption: str | None = None
    names: int = 1
    narrow: bool = False


def percent(found: Mapping[str, Any] | Interval | None, digits: int = 0, sign: str = "") -> str:
    """An interval of a share in percent: "41 [35, 47]"; a dash where there is none."""
    return shown(found, digits, 100, sign)


def shown(
    found: Mapping[str, Any] | Interval | None, digits: int = 2, factor: float = 1, sign: str = ""
) -> str:
    """An interval as text: "0.41 [0.35, 0.47]"; a dash where there is none.

    Without its ends the mean alone; with the lowest and the highest seed, those in parentheses.
    """
    if found is None:
        return "–"
    one = vars(found) if isinstance(found, Interval) else found

    def text(key: str, sign: str = "") -> str:
        return f"{factor * one[key]:{sign}.{digits}f}"

    parts = [text("mean", sign)]
    if one["low"] is not None:
        parts.append(f"[{text('low', sign)}, {text('high', sign)}]")
    if "lowest" in one:
        to = " to " if sign or one["lowest"] < 0 else "–"
        parts.append(f"({text('lowest', sign)}{to}{text('highest', sign)})")
    return " ".join(parts)


def one_line(cell: str) -> str:
    """A cell that a terminal shows on several lines; an interval on a line of its own in brackets:
    "0.41 [0.35, 0.47]"."""
    return " ".join(_TWO_LINES.sub(r"\1 [\2, \3]", cell).split())
