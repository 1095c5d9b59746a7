"""What `selfie demo` prints: the reading, given and generated labels, the conditions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from selfie_adapters.commands.demo_measuring import Measured
from selfie_adapters.commands.printing import print_note
from selfie_adapters.evaluation.naming.verdicts import Named, Verdict
from selfie_adapters.output import SILENT, visible
from selfie_adapters.reading.display import token_text
from selfie_adapters.reading.read import Cell, Reading
from selfie_adapters.statistics import Interval
from selfie_adapters.training.run_reading import Run

MARKS: dict[Verdict, str] = {"right": "✓", "related": "≈", "wrong": "✗", "no concept": SILENT}
MEANINGS: dict[Verdict, str] = {
    "right": "right: the concept's name or a synonym",
    "related": "related: a direct hypernym, hyponym or sibling in WordNet",
    "wrong": "wrong",
    "no concept": "silent: the adapter answered that there is no concept",
}
_STYLES: dict[Verdict, str] = {
    "right": "green",
    "related": "cyan",
    "wrong": "red",
    "no concept": "dim",
}


DIFFERENCES = (
    "Differences: percentage points of right labels, on the same concepts, with paired 95 % "
    "intervals. The adapter beats a condition where the interval is above 0."
)


def shown_label(cell: Cell) -> str:
    """The cell's label, or the mark of a silent one."""
    return SILENT if cell.withheld is not None else visible(cell.label) or SILENT


def print_reading(console: Console, reading: Reading) -> None:
    """Tokens down; across, for each block, the label and the logit lens's word for one state."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("token", no_wrap=True, justify="right", max_width=12)
    for layer in reading.plan.layers:
        table.add_column(f"block {layer}", no_wrap=True, max_width=20)
        table.add_column("lens", no_wrap=True, max_width=10, style="dim italic")
    for position in reading.plan.positions:
        token = token_text(reading.plan.tokens[position])
        row = [Text(str(token), style="bold")]
        for layer in reading.plan.layers:
            cell = reading.at(layer, position)
            row.append(Text(shown_label(cell), style="dim" if cell.withheld else ""))
            row.append(Text(visible(cell.lens or "")))
        table.add_row(*row)
    console.print(table)
    print_note(
        console, f"{SILENT} silent: no concept, or not sure enough. lens: the logit lens's word"
    )


def print_pairs(console: Console, named: Named, count: int) -> None:
    """The first `count` given names with their generated labels, then how many are right."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), show_header=False)
    for _ in range(2):
        table.add_column(width=1)
        table.add_column(no_wrap=True, max_width=34)
    cells = [_pair(named, i) for i in range(min(count, len(named.labels)))]
    half = -(-len(cells) // 2)
    for left, right in zip(cells[:half], [*cells[half:], ("", "")], strict=False):
        table.add_row(*left, *right)
    console.print(table)
    for sentence in pair_sentences(named, count):
        console.print(Text(sentence))
    for one in MARKS:
        if one in named.verdicts[:count]:
            print_note(console, f"{MARKS[one]} {MEANINGS[one]}")


def pair_sentences(named: Named, count: int) -> list[str]:
    """How many of the first `count` labels are right, and how many of those that are shown."""
    verdicts, shown = named.verdicts[:count], named.shown[:count]
    found = [f"{len(verdicts)} concepts: {_counts(verdicts)}."]
    believed: list[Verdict] = [one for one, seen in zip(verdicts, shown, strict=True) if seen]
    if withheld := len(verdicts) - len(believed) - verdicts.count("no concept"):
        rest = f": {_counts(believed)}" if believed else ""
        found.append(
            f"In brackets: {withheld} below the threshold of confidence, which selfie read would "
            f"not show. Shown {len(believed)}{rest}."
        )
    return found


def _pair(named: Named, i: int) -> tuple[Text, Text]:
    verdict = named.verdicts[i]
    label = pair_label(named, i) or SILENT
    text = Text(f"{visible(named.topics[i].title)} → ").append(label, style=_STYLES[verdict])
    return Text(MARKS[verdict], style=_STYLES[verdict]), text


def pair_label(named: Named, i: int) -> str:
    """A generated label, in brackets if it is not confident enough, empty for "no concept"."""
    if named.verdicts[i] == "no concept":
        return ""
    text = visible(named.labels[i])
    return text if named.shown[i] else f"[{text}]"


def _counts(verdicts: Sequence[Verdict]) -> str:
    """Such as: 14 right, 5 related, 10 wrong, 1 silent."""
    found = Counter(verdicts)
    listed = [f"{found[one]} {one}" for one in ("right", "related", "wrong") if found[one]]
    if silent := found["no concept"]:
        listed.append(f"{silent} silent")
    return ", ".join(listed)


def print_conditions(console: Console, places: Sequence[Measured]) -> None:
    """A row per condition: shares of right, and of right or related labels, at each place."""
    topics = len(places[0].named[0].labels)
    table = Table(title=f"{topics} test concepts, % of labels [95 % interval]")
    table.add_column("condition")
    for place in places:
        heading = place.title.replace(", ", "\n")
        table.add_column(f"{heading}\nright", justify="right")
        table.add_column("right or related", justify="right")
    for row in zip(*(place.named for place in places), strict=True):
        cells = [
            percent(one.share(measure)) for one in row for measure in ("right", "right or related")
        ]
        first = row[0] is places[0].named[0]
        table.add_row(row[0].condition, *cells, style="bold" if first else "")
    console.print(table)
    for place in places:
        console.print(comparison_sentence(place), highlight=False, markup=False)
    print_note(console, DIFFERENCES)


def comparison_sentence(measured: Measured) -> str:
    """Which conditions the adapter beats at a place: those where the paired interval of the
    difference in right labels is above 0."""
    beaten, others = [], []
    for one in measured.compared():
        found = Interval(**one["difference"])
        text = f"{one['second']} ({percent(found, sign='+')})"
        (beaten if one["first_beats_second"] else others).append(text)
    parts = [f"beats {', '.join(beaten)}"] if beaten else []
    if others:
        parts.append(f"does NOT beat {', '.join(others)}")
    title = measured.title[:1].upper() + measured.title[1:]
    return f"{title}: the adapter {'; it '.join(parts)}."


def print_training(console: Console, run: Run) -> None:
    console.print(training_sentence(run), highlight=False, markup=False)


def training_sentence(run: Run) -> str:
    """How far a training got on held-out names."""
    steps = sorted(run.validation)
    losses = " → ".join(f"{run.validation[step]:.2f}" for step in steps)
    at = ", ".join(map(str, steps))
    return f"Loss of held-out names after step {at}: {losses} nats per token."


def percent(found: Interval, sign: str = "") -> str:
    """Such as: 41 [34, 49]."""
    mean, low, high = (f"{100 * one:{sign}.0f}" for one in (found.mean, found.low, found.high))
    return f"{mean} [{low}, {high}]"
