"""What `selfie label` prints: controls, labels, what ranked them, and what it all means."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from selfie_adapters.output import EMPTY, SILENT, visible

if TYPE_CHECKING:
    from selfie_adapters.labelling.job import LabelJob
    from selfie_adapters.labelling.rows import LabelRow


_LISTED = 20  # vectors whose labels are listed
_NAME = 20  # characters of a dataset's name


def show_labels(console: Console, job: LabelJob, show_withheld: bool = False) -> None:
    """The first labels with the given ones, and how many are equal. show_withheld: labels that are
    withheld too.

    Raises DataError for a file of labels that was damaged since it was written.
    """
    from selfie_adapters.labelling.finished_run import open_run
    from selfie_adapters.labelling.summary import LabelCounts

    dataset = job.source.dataset
    sections = [] if dataset is None else dataset.sections
    empty = {one.id for one in sections if one.metadata["vector_type"] == "null"}
    counts, nothing = LabelCounts(), LabelCounts()
    first: list[LabelRow] = []
    for number, (row, *others) in enumerate(open_run(job.folder).labelled()):
        (nothing if row.dataset in empty else counts).add(row)
        if number < _LISTED:
            further = [one for one in others if isinstance(one.concept_number, int)]
            first += [row, *(one for one in further if show_withheld or one.concept is True)]
    console.print(_label_table(first, len(sections) > 1, show_withheld))
    for line in (counts.sentence(), nothing.silence()):
        if line is not None:
            console.print(line, highlight=False, markup=False)


def _label_table(rows: Sequence[LabelRow], several: bool, show_withheld: bool) -> Table:
    """One line per vector and concept. several: the dataset of each vector is shown."""
    table = Table(title="Labels", box=None, pad_edge=False, title_justify="left")
    known = any(isinstance(row.given, str) for row in rows)
    sure = any(isinstance(row.confidence, float) for row in rows)
    table.add_column("vector", no_wrap=True)
    if known:
        table.add_column("given", ratio=2, overflow="fold", min_width=8)
    table.add_column("generated", ratio=3, overflow="fold", min_width=12)
    if known:
        table.add_column("")
    table.add_column("confidence" if sure else "gain", justify="right")
    measured = any(isinstance(row.explained, float) for row in rows)
    if measured:
        table.add_column("explained", justify="right")
    for row in rows:
        withheld = isinstance(row.withheld, str)
        silent = withheld and not show_withheld
        name = f"{_cut(row.dataset)} {row.index}" if several else str(row.index)
        if isinstance(row.concept_number, int) and row.concept_number > 1:
            name = "+"
        text = Text(SILENT if silent else visible(row.label) or EMPTY, "dim" if withheld else "")
        number = row.confidence if sure else row.gain
        shown = f"{number:.2f}" if isinstance(number, float) else ""
        equal = "✓" if row.equal is True and not silent else ""
        given = [Text(visible(row.given) if isinstance(row.given, str) else "")] if known else []
        share = [f"{row.explained:.0%}" if isinstance(row.explained, float) else ""]
        cells = [*given, text, *([equal] if known else []), shown, *(share if measured else [])]
        table.add_row(Text(visible(name)), *cells)
    return table


def _cut(dataset: object) -> str:
    """A dataset's name, without its middle where it is long."""
    text = dataset if isinstance(dataset, str) else ""
    return text if len(text) <= _NAME else f"{text[: _NAME // 2]}…{text[-(_NAME // 2 - 1) :]}"


def show_controls(console: Console, folder: Path) -> None:
    """How the run's own vectors and the controls scored, and what that means for this run; nothing
    if it is not known."""
    from selfie_adapters.labelling.run_record import read_controls
    from selfie_adapters.labelling.summary import controls_sentence

    rows = read_controls(folder)
    if not rows:
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
    if (sentence := controls_sentence(folder)) is not None:
        console.print(sentence, highlight=False, markup=False)


def _shown(text: str) -> str:
    return escape(visible(text))


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
        console.print(_reasons_table(rows, several, scales))
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


def _reasons_table(rows: Sequence[LabelRow], several: bool, scales: bool) -> Table:
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
