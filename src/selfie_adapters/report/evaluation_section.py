"""An evaluation as a section of a page: labels, conditions with intervals, failures, tables."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from selfie_adapters.errors import ConfigError, DataError, MissingFileError
from selfie_adapters.evaluation.base import find_protocol, protocol_names
from selfie_adapters.evaluation.loss.results import loss_reports
from selfie_adapters.evaluation.naming.results import merged as merged_names
from selfie_adapters.evaluation.naming.results import own_titles, position_name
from selfie_adapters.evaluation.recipes import titles_of
from selfie_adapters.evaluation.retrieval.tables import merged
from selfie_adapters.evaluation.scoring.tables import TITLES
from selfie_adapters.evaluation.tables import Table, one_line
from selfie_adapters.files import read_json
from selfie_adapters.output import visible
from selfie_adapters.report.evaluation_labels import failures, labels, own_conditions
from selfie_adapters.report.pieces import (
    Estimate,
    Facts,
    Intervals,
    PageTable,
    Piece,
    RunSection,
    Sentences,
    TableRow,
    shown_facts,
)

_FOLDERS = re.compile(r"(?<!\S)/(?:[^/\s]+/)+(?=[^/\s]+/)")
"""All of an absolute path but its last two names."""
_INSIDE_INTERVAL = re.compile(r"(?<=\d), (?=[-+]?[\d.]+\])")
_OTHER_RESULTS = (LookupError, TypeError, ValueError, AttributeError, StopIteration, OverflowError)
"""What reading results of another form than this version's raises."""


def read_results(folder: Path) -> dict[str, Any]:
    """results.json of an evaluation. Raises MissingFileError where it has not finished, DataError
    for something else."""
    file = folder / "results.json"
    if not file.is_file():
        raise MissingFileError(
            f"{folder}: an evaluation without results.json. Run the same selfie eval command again "
            "to finish it."
        )
    results = read_json(file)
    if not isinstance(results, dict) or not isinstance(results.get("protocol"), str):
        raise DataError(f"{file}: not the results of selfie eval. Give another folder.")
    return results


def evaluation_section(folder: Path, name: str, table: str) -> RunSection:
    """The section of the evaluation in `folder`. table: the label table's name on the page.

    Raises MissingFileError or DataError for a folder without finished results.
    """
    results = read_results(folder)
    try:
        return _section(folder, results, name, table)
    except (DataError, ConfigError):
        raise
    except _OTHER_RESULTS as error:
        raise DataError(
            f"{folder / 'results.json'}: not the results of this version's selfie eval "
            f"{results['protocol']} ({type(error).__name__}: {error!s:.100}). Run the evaluation "
            "again."
        ) from error


def _section(folder: Path, results: dict[str, Any], name: str, table: str) -> RunSection:
    protocol, settings = results["protocol"], results["settings"]
    printed = [*_report(protocol, results)]
    lines = [visible(one) for one in printed if isinstance(one, str)]
    pieces: list[Piece] = [*labels(folder, results, table)]
    pieces += [Sentences(lines, "In short")] if lines else []
    pieces += failures(folder, results)
    pieces += _INTERVALS[protocol](results) if protocol in _INTERVALS else []
    pieces += [_table(one) for one in printed if isinstance(one, Table)]
    pieces.append(Facts(_facts(folder, results), "How this was made"))
    model = visible(str(settings.get("model") or ""))
    return RunSection(name, f"evaluation: {protocol}", model, pieces)


def _report(protocol: str, results: dict[str, Any]) -> Iterator[Table | str]:
    """What `selfie eval` prints; nothing for a protocol of another version."""
    known = {find_protocol(name).recorded_as or name: name for name in protocol_names()}
    if protocol in known:
        yield from find_protocol(known[protocol]).report(results)


def _table(one: Table) -> PageTable:
    """A printed table for the page: the name columns after the first are cells like the others."""
    rows = [
        TableRow(visible(row[0]), [_cell(text) for text in row[1:]], own=row[0] in one.bold)
        for row in one.rows
    ]
    columns = [one.columns[0] or "condition", *one.columns[1:]]
    return PageTable(visible(one.title) or "Conditions", columns, rows, visible(one.caption or ""))


def _cell(text: str) -> str:
    """A cell on one line; an interval is not broken inside."""
    return _INSIDE_INTERVAL.sub(",\u00a0", visible(one_line(text)))


def _facts(folder: Path, results: Mapping[str, Any]) -> dict[str, str]:
    def plain(value: Any) -> str | None:
        if isinstance(value, Mapping):
            named = ((key, plain(one)) for key, one in value.items())
            return ", ".join(f"{key}: {one}" for key, one in named if one is not None) or None
        if isinstance(value, list):
            return ", ".join(map(str, value)) or None
        if isinstance(value, bool):
            return "yes" if value else "no"
        return None if value is None else str(value) or None

    settings = {key.replace("_", " "): plain(one) for key, one in results["settings"].items()}
    versions = plain(results.get("versions"))
    counts = plain(results.get("counts"))
    interval = results.get("interval")
    return shown_facts(
        {
            "counts": counts,
            "intervals": interval,
            **settings,
            "versions": versions,
            "folder": folder,
        }
    )


def _of(found: Mapping[str, Any], condition: str, own: bool, meaning: str = "") -> Estimate:
    return Estimate(
        visible(condition),
        found["mean"],
        found["low"],
        found["high"],
        own,
        _FOLDERS.sub("…/", visible(meaning)),
    )


def _loss_intervals(results: Mapping[str, Any]) -> list[Piece]:
    unit = "loss, nats per token"
    return [
        Intervals(
            f"{visible(one.subject.title)} on {visible(one.dataset)}",
            unit,
            [_of(found, name, name == "trained") for name, found in one.loss.items()],
            f"{one.examples:,} labels of {one.vectors:,} vectors; lower is better.",
        )
        for one in loss_reports(results)
    ]


def _naming_intervals(results: Mapping[str, Any]) -> list[Piece]:
    return [
        Intervals(
            f"Right or related: {position_name(place['position'])}",
            "share of labels",
            [
                _of(
                    one["share"]["right or related"],
                    one["condition"],
                    one["condition"] in own_titles(results, place),
                    one.get("meaning", ""),
                )
                for one in merged_names(place)
            ],
        )
        for place in results["positions"]
    ]


def _recall_intervals(results: Mapping[str, Any]) -> list[Piece]:
    titles = titles_of(results)
    own = {titles[name][0] for name in own_conditions(results) if name in titles}
    rows = [
        _of(one["recall_at"]["1"], one["condition"], one["condition"] in own, one["meaning"])
        for one in merged(results)
    ]
    return [Intervals("Recall at 1", "share of labels that find their topic", rows)]


def _detection_intervals(results: Mapping[str, Any]) -> list[Piece]:
    own = {*results["settings"]["labels"]}
    rows = [
        _of(found, one["condition"], one["condition"] in own, one["meaning"])
        for one in results["conditions"]
        if (found := one["balanced_accuracy"]) is not None
    ]
    return [Intervals("Balanced accuracy of the judge", "share", rows)]


def _bridge_intervals(results: Mapping[str, Any]) -> list[Piece]:
    rows = [
        _of(found, one["condition"], one["condition"] == results["lead"], one["meaning"])
        for one in results["conditions"]
        if (found := one["decoded"]) is not None
    ]
    lead = visible(results["lead"])
    pieces: list[Piece] = [Intervals("Questions whose bridge is decoded", "share", rows)]
    if places := results.get("by_part"):
        rows = [_of(one, place, own=True) for place, one in places.items()]
        pieces.append(Intervals(f"Where {lead} names the bridge", "share", rows))
    if blocks := results.get("by_layer"):
        rows = [Estimate(f"block {block}", share, own=True) for block, share in blocks.items()]
        pieces.append(Intervals(f"Blocks where {lead} names the bridge", "share", rows))
    return pieces


def _scoring_intervals(results: Mapping[str, Any]) -> list[Piece]:
    rows = [
        _of(found, str(TITLES.get(name, name)), name == "trained")
        for name, one in results.get("conditions", {}).items()
        if (found := one["content"]["auroc"]) is not None
    ]
    return [Intervals("AUROC of the latent's activation", "AUROC", rows)] if rows else []


_INTERVALS = {
    "loss": _loss_intervals,
    "naming": _naming_intervals,
    "retrieval": _recall_intervals,
    "taboo": _recall_intervals,
    "detection": _detection_intervals,
    "bridge": _bridge_intervals,
    "generation scoring": _scoring_intervals,
}
"""By the protocol's name in results.json."""
