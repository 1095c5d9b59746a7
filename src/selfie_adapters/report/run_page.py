"""One page for labelling, training and evaluation runs, each recognized by its files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from selfie_adapters.errors import ConfigError, DataError, MissingFileError
from selfie_adapters.files import read_json, user_path
from selfie_adapters.files.existing import exists
from selfie_adapters.output import visible
from selfie_adapters.report.evaluation_section import evaluation_section, read_results
from selfie_adapters.report.labelling_section import labelling_section
from selfie_adapters.report.matrix import cross_tests
from selfie_adapters.report.page import write_page
from selfie_adapters.report.pieces import LabelTable, Matrix, RunSection
from selfie_adapters.report.training_section import training_section

RunKind = Literal["labelling", "training", "evaluation"]


def kind_of_run(folder: str | Path) -> RunKind:
    """What kind of run is in `folder`. Raises MissingFileError if there is none, ConfigError for a
    folder that has a page of its own (a reading, the demo)."""
    path = user_path(folder)
    if not exists(path):
        raise MissingFileError(f"{path}: no such folder. Give the folder of a run.")
    if (path / "config.yaml").is_file() and (path / "metrics.jsonl").is_file():
        return "training"
    if (path / "config.json").is_file():
        match read_json(path / "config.json"):
            case {"protocol": str()}:
                return "evaluation"
            case {"settings": dict(), "vectors": _}:
                return "labelling"
    if (path / "results.json").is_file():
        match read_json(path / "results.json"):
            case {"protocol": str()}:
                return "evaluation"
            case {"places": list()}:
                raise ConfigError(f"{path}: selfie demo wrote a page of its own, report.html.")
    if (path / "reading.json").is_file():
        raise ConfigError(f"{path}: a reading has a page of its own, reading.html.")
    raise MissingFileError(
        f"{path}: not the folder of a run: the config.json of selfie label or selfie eval, or the "
        "config.yaml and metrics.jsonl of selfie train are expected. Give the folder of --out."
    )


def write_run_page(path: str | Path, folders: Sequence[str | Path]) -> list[RunSection]:
    """Write the page of the runs in `folders`, in this order; returns its sections.

    Raises ConfigError without a run or for one that is given twice, what `kind_of_run` raises, and
    what reading a run raises.
    """
    runs = [user_path(folder) for folder in folders]
    if not runs:
        raise ConfigError("selfie report: give the folder of at least one run.")
    kinds: list[RunKind] = [kind_of_run(run) for run in runs]
    resolved = [run.resolve() for run in runs]
    for number, run in enumerate(resolved):
        if run in resolved[:number]:
            raise ConfigError(f"{runs[number]}: given twice. Give each run once.")
    sections = [
        _section(kind, run, name, f"labels-{number}")
        for number, (kind, run, name) in enumerate(zip(kinds, runs, _names(resolved), strict=True))
    ]
    results = [
        (section.name, read_results(run))
        for kind, run, section in zip(kinds, runs, sections, strict=True)
        if kind == "evaluation"
    ]
    title = sections[0].name if len(sections) == 1 else f"{len(sections)} runs"
    write_page(
        path,
        "report",
        {
            "title": f"Report: {title}",
            "runs": sections,
            "shared": _matrices(results),
            "tables": any(isinstance(p, LabelTable) for one in sections for p in one.pieces),
        },
    )
    return sections


def _section(kind: RunKind, folder: Path, name: str, table: str) -> RunSection:
    if kind == "labelling":
        return labelling_section(folder, name, table)
    if kind == "training":
        return training_section(folder, name)
    return evaluation_section(folder, name, table)


def _matrices(results: Sequence[tuple[str, dict[str, Any]]]) -> list[Matrix]:
    try:
        return cross_tests(results)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DataError(
            "the evaluations are not results of this version's selfie eval "
            f"({type(error).__name__}: {error!s:.100}). Run them again."
        ) from error


def _names(folders: Sequence[Path]) -> list[str]:
    """The folders' own names, with as many of their parents as tell them apart."""
    parts, names = 0, [""] * len(folders)
    while len({*names}) < len(names) or parts == 0:
        parts += 1  # they differ: no folder is given twice
        names = ["/".join(one.parts[-parts:]) for one in folders]
    return [visible(name) for name in names]
