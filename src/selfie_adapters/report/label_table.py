"""Labels of up to some hundred thousand vectors, packed into a page."""

from __future__ import annotations

import base64
import gzip
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from selfie_adapters.output import EMPTY, SILENT, visible
from selfie_adapters.report.pieces import LabelTable, Pair

ROWS_ON_A_PAGE = 200_000
"""Of a larger run the first ones are on the page; its folder has them all."""
_PRINTED = 40  # rows that print, and that are there without JavaScript

LabelMeasure = Literal["confidence", "gain", "rank", "score"]
MARKS = {
    "equal": "✓",
    "right": "✓",
    "first": "✓",
    "related": "≈",
    "among the first 10": "≈",
    "different": "✗",
    "wrong": "✗",
    "later": "✗",
    "no concept": SILENT,
    "below threshold": SILENT,
}
"""Mark of each verdict."""


@dataclass(frozen=True)
class ShownLabel:
    """A row of the table. dataset: where there are several. value: the measure's number.

    verdict: a key of `MARKS`, or empty where nothing is known. withheld: not shown at first.
    gain: for the details, where it is not the measure. details: further names and values.
    """

    index: int
    label: str
    value: float | None
    dataset: str = ""
    given: str | None = None
    verdict: str = ""
    withheld: bool = False
    gain: float | None = None
    details: tuple[tuple[str, str], ...] = ()


def label_table(
    name: str, title: str, labels: Iterable[ShownLabel], measure: LabelMeasure, note: str = ""
) -> LabelTable | None:
    """The piece for `labels`, in their order; None if there are none. name: unique on the page."""
    datasets: dict[str, int] = {}  # few different ones, which rows hold as numbers
    verdicts: dict[str, int] = {}
    columns: dict[str, list[Any]] = {
        key: [] for key in ("dataset", "index", "given", "label", "value", "verdict", "withheld")
    }
    gains: list[float | None] = []
    details: list[list[list[str]]] = []
    first: list[Pair] = []
    total = 0
    for one in labels:
        total += 1
        if total > ROWS_ON_A_PAGE:
            continue
        columns["dataset"].append(datasets.setdefault(visible(one.dataset), len(datasets)))
        columns["index"].append(one.index)
        columns["given"].append(None if one.given is None else visible(one.given))
        columns["label"].append(visible(one.label))
        columns["value"].append(_rounded(one.value))
        columns["verdict"].append(verdicts.setdefault(one.verdict, len(verdicts)))
        columns["withheld"].append(int(one.withheld))
        gains.append(_rounded(one.gain))
        details.append([[name, visible(text)] for name, text in one.details])
        if total <= _PRINTED:
            first.append(_printed(one, measure))
    if not total:
        return None
    has_given = any(given is not None for given in columns["given"])
    if not has_given:
        del columns["given"]
    if any(gain is not None for gain in gains):
        columns["gain"] = gains
    if any(details):
        columns["details"] = details
    if total > ROWS_ON_A_PAGE:
        more = f"The first {ROWS_ON_A_PAGE:,} of {total:,} vectors; the run's folder has them all."
        note = f"{note} {more}".strip()
    content = {
        "measure": measure,
        "datasets": [*datasets],
        "verdicts": [*verdicts],
        "marks": [MARKS.get(one, "") for one in verdicts],
        "columns": columns,
    }
    rows = min(total, ROWS_ON_A_PAGE)
    return LabelTable(name, title, rows, _packed(content), measure, first, has_given, note)


def number_text(value: float | None, measure: LabelMeasure) -> str:
    """A measure's number as the page shows it."""
    if value is None:
        return ""
    form = {"confidence": ".0%", "gain": ".2f", "rank": ".0f", "score": ".2f"}[measure]
    return format(value, form)


def _printed(one: ShownLabel, measure: LabelMeasure) -> Pair:
    text = SILENT if one.withheld else visible(one.label) or EMPTY
    number = number_text(one.value, measure)
    detail = f"{measure} {number}" if number else ""
    given = f"{one.dataset} {one.index}".strip() if one.given is None else one.given
    return Pair(visible(given), text, detail, mark=MARKS.get(one.verdict, ""))


def _rounded(value: float | None) -> float | None:
    if value is None or not math.isfinite(value):
        return None
    return round(value, 3)


def _packed(content: dict[str, Any]) -> str:
    """gzip in base64: a third of the bytes of the JSON, and nothing that could end a script."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    data = gzip.compress(text.encode("utf-8", "replace"), mtime=0)
    return base64.b64encode(data).decode("ascii")
