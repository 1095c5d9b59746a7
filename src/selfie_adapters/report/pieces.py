"""What a page is made of; templates/pieces.html has a macro for each kind of piece."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from selfie_adapters.output import visible
from selfie_adapters.report.figures import CONTROL, TRAINED


@dataclass(frozen=True)
class Sentences:
    """Paragraphs."""

    kind: ClassVar[str] = "sentences"
    lines: Sequence[str]
    title: str = ""


@dataclass(frozen=True)
class Facts:
    """Names and values: how something was made."""

    kind: ClassVar[str] = "facts"
    rows: Mapping[str, str]
    title: str = ""


@dataclass(frozen=True)
class Drawing:
    """A figure. svg: as report/figures.py draws it; its colors follow the page's scheme."""

    kind: ClassVar[str] = "drawing"
    title: str
    svg: str
    caption: str = ""

    @property
    def themed(self) -> str:
        """The SVG with the page's colors in place of its own, and its title as its name."""
        colors = {"#000000": "currentColor", TRAINED: "var(--own)", CONTROL: "var(--control)"}
        text = re.sub("<metadata>.*?</metadata>", "", self.svg, flags=re.DOTALL)
        for own, of_page in colors.items():
            text = text.replace(own, of_page)
        name = html.escape(self.title, quote=True)
        return text.replace("<svg ", f'<svg role="img" aria-label="{name}" ', 1)


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval; low and high are None where there is none.

    own: of what the page is about; others are controls and baselines. meaning: what the condition
    is.
    """

    condition: str
    mean: float
    low: float | None = None
    high: float | None = None
    own: bool = False
    meaning: str = ""

    @property
    def text(self) -> str:
        if self.low is None or self.high is None:
            return _two_places(self.mean)
        low, high = _two_places(self.low), _two_places(self.high)
        return f"{_two_places(self.mean)} [{low}, {high}]"


@dataclass(frozen=True)
class Intervals:
    """Estimates of one quantity, one below the other on one scale. unit: such as nats per token."""

    kind: ClassVar[str] = "intervals"
    title: str
    unit: str
    rows: Sequence[Estimate]
    note: str = ""

    def places(self) -> list[tuple[Estimate, float, float, float]]:
        """(estimate, low, mean, high) of every row, the last three in percent of the width.

        The scale has zero and every interval on it.
        """
        ends = [0.0]
        for one in self.rows:
            ends += [one.mean if end is None else end for end in (one.low, one.mean, one.high)]
        first, last = min(ends), max(ends)
        width = (last - first) or 1.0

        def at(value: float) -> float:
            return round(100 * (value - first) / width, 2)

        return [
            (
                one,
                at(one.mean if one.low is None else one.low),
                at(one.mean),
                at(one.mean if one.high is None else one.high),
            )
            for one in self.rows
        ]


@dataclass(frozen=True)
class Pair:
    """A given label and a generated one. verdict: right, related, wrong, silent, or nothing."""

    given: str
    generated: str
    detail: str = ""
    verdict: str = ""
    mark: str = ""


@dataclass(frozen=True)
class Gallery:
    """Pairs of labels in columns. note: how they were chosen."""

    kind: ClassVar[str] = "gallery"
    title: str
    pairs: Sequence[Pair]
    note: str = ""


@dataclass(frozen=True)
class TableRow:
    """cells: one per column after the first. own: of what the page is about."""

    name: str
    cells: Sequence[str]
    meaning: str = ""
    own: bool = False


@dataclass(frozen=True)
class PageTable:
    """A table that becomes a list of cards on a phone. columns: with that of the rows' names."""

    kind: ClassVar[str] = "table"
    title: str
    columns: Sequence[str]
    rows: Sequence[TableRow]
    note: str = ""


@dataclass(frozen=True)
class MatrixCell:
    """text: the number with its interval. shade: 0 to 1 within the column, 1 for the best."""

    text: str
    shade: float


@dataclass(frozen=True)
class Matrix:
    """Adapters × data; None where a pair was not measured."""

    kind: ClassVar[str] = "matrix"
    title: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[MatrixCell | None]]]
    note: str = ""


@dataclass(frozen=True)
class LabelTable:
    """Labels of many vectors: searched, sorted and filtered in the browser (templates/labels.js).

    packed: the rows, gzip in base64 (report/label_table.py). measure: name of the number in the
    last column. first: some rows in full, for print and for browsers without JavaScript.
    """

    kind: ClassVar[str] = "labels"
    name: str
    title: str
    rows: int
    packed: str
    measure: str
    first: Sequence[Pair]
    has_given: bool
    note: str = ""


Piece = Sentences | Facts | Drawing | Intervals | Gallery | PageTable | Matrix | LabelTable


@dataclass(frozen=True)
class RunSection:
    """One run on a page. what: its kind in a few words; model: what it ran on."""

    name: str
    what: str
    model: str
    pieces: Sequence[Piece] = field(default_factory=list)


def shown_facts(facts: Mapping[str, Any]) -> dict[str, str]:
    """Facts as strings with nothing invisible in them; those that are None are omitted."""
    return {key: visible(str(value)) for key, value in facts.items() if value is not None}


def _two_places(number: float) -> str:
    """0.00 also for what rounds to minus zero."""
    return f"{round(number, 2) + 0.0:.2f}"
