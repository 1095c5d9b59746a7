"""`selfie data …`: look at training files, fetch the published ones."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from rich.console import Console

from selfie_adapters.commands.options import Json
from selfie_adapters.commands.printing import print_json, print_line, rich_table

if TYPE_CHECKING:
    from selfie_adapters.dataset.inspection import Inspection, SectionSummary, Spread

_SHOWN = 20


def inspect(file: str, *, json: Json = False) -> None:
    """Show what a training file holds and everything that is wrong with it.

    Exit code 1 if something is wrong.

    Parameters
    ----------
    file
        Training file (.json or .json.gz).
    """
    from selfie_adapters.dataset.inspection import inspect_file

    found = inspect_file(file)
    if json:
        print_json([found.as_dict()])
    else:
        _print(found)
    if found.problems:
        sys.exit(1)


def fetch(name: str, *, out: str = ".") -> None:
    """Fetch a published data file and check its SHA-256.

    Parameters
    ----------
    name
        goodfire-8b-labels or vital-articles.
    out
        Folder to put it in.
    """
    from selfie_adapters.sources.published import fetch_published

    path, fetched = fetch_published(name, out)
    what = "fetched" if fetched else "already there"
    print_line(f"{what}, SHA-256 as expected: {path}")


def _print(found: Inspection) -> None:
    console = Console()
    for section in found.sections:
        rows = [
            (
                "vectors",
                "missing" if section.rows is None else f"{section.rows} × {section.d_model}",
            ),
            ("labelled", f"{section.labelled} ({_splits(section)})"),
            ("labels", f"{section.labels} ({section.distinct_labels} distinct)"),
            ("labels per vector", _spread(section.labels_per_vector, "{:.2f}")),
            ("label length", _spread(section.label_length, "{:.1f}", " characters")),
            ("vector norm", _spread(section.norm, "{:.4g}")),
            (
                "most repeated",
                "; ".join(f"{label!r:.60} {n} times" for label, n in section.most_repeated)
                or "none",
            ),
        ]
        console.print(rich_table(("", ""), rows, section.name, show_header=False))
    for problem in found.problems[:_SHOWN]:
        print_line(f"✗ {problem}", console, "red")
    if len(found.problems) > _SHOWN:
        print_line(f"… and {len(found.problems) - _SHOWN} more", console, "red")
    if not found.problems:
        print_line("✓ nothing is wrong", console, "green")


def _splits(section: SectionSummary) -> str:
    test = f", {section.test} test" if section.test else ""
    return f"{section.train} train, {section.val} val{test}"


def _spread(spread: Spread | None, form: str, unit: str = "") -> str:
    if spread is None:
        return "–"
    least, mean, greatest = (form.format(x) for x in (spread.least, spread.mean, spread.greatest))
    return f"mean {mean}, from {least} to {greatest}{unit}"
