"""`selfie data …`: training files as wholes; the published ones."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from selfie_adapters.commands.options import Json, Overwrite, options
from selfie_adapters.commands.printing import print_json, print_line, rich_table
from selfie_adapters.config.commands import (
    ConvertSettings,
    DataFileSettings,
    FetchSettings,
    MergeSettings,
    SplitFileSettings,
)

if TYPE_CHECKING:
    from selfie_adapters.dataset.inspection import Inspection, SectionSummary, Spread

_SHOWN = 20


@options(DataFileSettings)
def inspect(settings: DataFileSettings, *, json: Json = False) -> None:
    """Show what a training file holds and everything that is wrong with it.

    Exit code 1 if something is wrong.
    """
    from selfie_adapters.dataset.inspection import inspect_file

    found = inspect_file(settings.file)
    if json:
        print_json([found.as_dict()])
    else:
        _print(found)
    if found.problems:
        sys.exit(1)


@options(FetchSettings)
def fetch(settings: FetchSettings, *, out: str = ".") -> None:
    """Fetch a published data file and check its SHA-256.

    Parameters
    ----------
    out
        Folder to put it in.
    """
    from selfie_adapters.sources.published import fetch_published

    path, fetched = fetch_published(settings.name, out)
    what = "fetched" if fetched else "already there"
    print_line(f"{what}, SHA-256 as expected: {path}")


@options(DataFileSettings)
def check(settings: DataFileSettings) -> None:
    """Say whether a training file will train; exit code 1, and what is wrong, if not."""
    from selfie_adapters.dataset.inspection import inspect_file

    file = settings.file
    found = inspect_file(file)
    wrong = [str(problem) for problem in found.problems]
    if not wrong:
        for split, count in (
            ("train", sum(section.train for section in found.sections)),
            ("val", sum(section.val for section in found.sections)),
        ):
            if not count:
                wrong.append(f'no vector has the split "{split}". Try: selfie data split {file}')
    console = Console(stderr=bool(wrong))
    if not wrong:
        labels = sum(section.labels for section in found.sections)
        width = found.sections[0].d_model
        print_line(f"will train: {labels} labels, vectors of width {width}", console)
        return
    _print_problems(wrong, console)
    print_line(f"will not train: {len(wrong)} problems in {file}", console)
    sys.exit(1)


@options(MergeSettings)
def merge(settings: MergeSettings, *, out: Path, overwrite: Overwrite = False) -> None:
    """Put the sections of several training files into one; vector files stay where they are.

    Parameters
    ----------
    out
        Training file to write.
    """
    from selfie_adapters.dataset.editing import merge_files

    print_line(str(merge_files(settings.files, out, overwrite)))


@options(SplitFileSettings)
def split(
    settings: SplitFileSettings, *, out: Path | None = None, overwrite: Overwrite = False
) -> None:
    """Choose the validation rows of a training or label file again; test rows stay.

    Parameters
    ----------
    out
        File to write; default: the file itself.
    """
    from selfie_adapters.dataset.editing import split_file

    path = split_file(settings.file, settings.val_fraction, settings.seed, out, overwrite)
    print_line(str(path))


@options(ConvertSettings)
def convert(settings: ConvertSettings, *, overwrite: Overwrite = False) -> None:
    """Write vectors as .safetensors if they are .pt, else as .pt; old vector files stay."""
    from selfie_adapters.dataset.editing import convert_file

    for path in convert_file(settings.file, overwrite):
        print_line(str(path))


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
    _print_problems([f"✗ {problem}" for problem in found.problems], console, "red")
    if not found.problems:
        print_line("✓ nothing is wrong", console, "green")


def _print_problems(problems: list[str], console: Console, style: str | None = None) -> None:
    """The first few, and how many more there are."""
    for problem in problems[:_SHOWN]:
        print_line(problem, console, style)
    if len(problems) > _SHOWN:
        print_line(f"… and {len(problems) - _SHOWN} more", console, style)


def _splits(section: SectionSummary) -> str:
    test = f", {section.test} test" if section.test else ""
    return f"{section.train} train, {section.val} val{test}"


def _spread(spread: Spread | None, form: str, unit: str = "") -> str:
    if spread is None:
        return "–"
    least, mean, greatest = (form.format(x) for x in (spread.least, spread.mean, spread.greatest))
    return f"mean {mean}, from {least} to {greatest}{unit}"
