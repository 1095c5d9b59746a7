"""Labels of an evaluation, and the worst of them."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from selfie_adapters.evaluation.naming.results import adapters_of
from selfie_adapters.evaluation.taboo.protocol import DESCRIPTION
from selfie_adapters.files.json_lines import iter_jsonl
from selfie_adapters.output import EMPTY, visible
from selfie_adapters.report.label_table import MARKS, LabelMeasure, ShownLabel, label_table
from selfie_adapters.report.pieces import Gallery, Pair, Piece

FAILURES = 24
NEAR = 10  # the last rank that is "among the first 10"; what comes later has failed
_LABELS, _EXAMPLES = "labels.jsonl", "examples.jsonl"
_Rows = Iterator[dict[str, Any]]


def labels(folder: Path, results: Mapping[str, Any], table: str) -> list[Piece]:
    """The label table of an evaluation whose folder has labels. Raises like `failures`."""
    if results["protocol"] not in _LABEL_TABLES:
        return []
    name, read, measure, note = _LABEL_TABLES[results["protocol"]]
    if not (folder / name).is_file():
        return []
    rows = (row for _, row in iter_jsonl(folder / name))
    piece = label_table(table, "Labels", read(results, rows), measure, note)
    return [] if piece is None else [piece]


def _naming_labels(results: Mapping[str, Any], rows: _Rows) -> Iterator[ShownLabel]:
    own = own_conditions(results)
    for row in rows:
        if row["condition"] not in own:
            continue
        verdict = row.get("verdict") or "no concept"
        adapter = f"{row['condition']}: " if len(own) > 1 else ""
        yield ShownLabel(
            row["index"],
            row["generated"],
            None,
            f"{adapter}{row['dataset']}",
            row["name"],
            verdict,
            not row["shown"],
        )


def _retrieval_labels(results: Mapping[str, Any], rows: _Rows) -> Iterator[ShownLabel]:
    own = own_conditions(results)
    for number, row in enumerate(rows):
        if row["condition"] not in own:
            continue
        rank = row["rank"]
        verdict = "first" if rank == 1 else "among the first 10" if rank <= NEAR else "later"
        dataset = row["condition"] if len(own) > 1 else ""
        yield ShownLabel(number, row["label"], rank, dataset, row["topic"], verdict)


def _scoring_labels(results: Mapping[str, Any], rows: _Rows) -> Iterator[ShownLabel]:
    """The leading condition's labels of each latent, alongside those of the label file."""
    settings = results["settings"]
    above = (settings.get("thresholds") or [0.0])[0]
    by_condition: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if "labels" in row:  # the others are negatives
            by_condition.setdefault(row["key"].partition(":")[0], []).append(row)
    lead = "trained" if "trained" in by_condition else next(iter(by_condition), "")
    given = {
        row["latent"]: "; ".join(dict.fromkeys(one["text"] for one in row["labels"]))
        for row in by_condition.get("training", [])
    }
    for row in by_condition.get(lead, []):
        for one in row["labels"]:
            scale = one.get("scale")
            yield ShownLabel(
                row["latent"],
                one["text"],
                _hit_share(one, above),
                given=given.get(row["latent"]),
                details=() if scale is None else (("scale", f"{scale:g}"),),
            )


def _hit_share(label: Mapping[str, Any], above: float) -> float | None:
    """The share of a label's conversations with a hit, as scores count them: 0 for an empty label,
    None where no conversation was measured."""
    sound = [one for one in label.get("conversations") or () if "error" not in one]
    if not sound:
        return None if label["text"] else 0.0
    return sum(one["content"][0] > above for one in sound) / len(sound)


_LABEL_TABLES: dict[
    str,
    tuple[str, Callable[[Mapping[str, Any], _Rows], Iterator[ShownLabel]], LabelMeasure, str],
] = {
    "naming": (
        _LABELS,
        _naming_labels,
        "confidence",
        "✓ a name or synonym of the concept, ≈ related (WordNet), ✗ wrong, · no concept.",
    ),
    "retrieval": (
        _LABELS,
        _retrieval_labels,
        "rank",
        "Rank of the given topic among all by similarity with the label: ✓ first, "
        "≈ among the first 10, ✗ later.",
    ),
    "taboo": (
        _LABELS,
        _retrieval_labels,
        "rank",
        "Rank of the given topic among all by similarity with the model's description of it, "
        "its name taken out: ✓ first, ≈ among the first 10, ✗ later.",
    ),
    "generation scoring": (
        "rows.jsonl",
        _scoring_labels,
        "score",
        "Score: the share of conversations written from the label in which its latent is active "
        "above the first threshold. Given: the label file's own label. The number is the latent's.",
    ),
}
"""By protocol: the file of its rows, what reads them, the number of each label, and a note."""


def failures(folder: Path, results: Mapping[str, Any]) -> list[Piece]:
    """The worst labels of an evaluation whose folder has them. Raises KeyError or TypeError for
    rows of another form."""
    protocol = results["protocol"]
    if protocol not in _WORST:
        return []
    file, worst, note = _WORST[protocol]
    if not (folder / file).is_file():
        return []
    pairs = worst(results, (row for _, row in iter_jsonl(folder / file)))
    return [Gallery("Failures", pairs, note)] if pairs else []


def _wrong_names(results: Mapping[str, Any], rows: _Rows) -> list[Pair]:
    own = own_conditions(results)
    wrong = (
        row
        for row in rows
        if row["condition"] in own and row["shown"] and row.get("verdict") == "wrong"
    )
    return [
        _failed(row["name"], row["generated"], f"block {row['layer']}")
        for row in islice(wrong, FAILURES)
    ]


def _highest_losses(_results: Mapping[str, Any], rows: _Rows) -> list[Pair]:
    worst = heapq.nlargest(FAILURES, rows, key=lambda row: row["trained"])
    return [
        Pair(
            visible(row["label"]),
            f"{row['trained']:.2f} nats per token",
            visible(f"on another vector {row['shuffled']:.2f}; {row['adapter']}"),
        )
        for row in worst
    ]


def _lowest_ranks(results: Mapping[str, Any], rows: _Rows) -> list[Pair]:
    own = own_conditions(results)
    found = (row for row in rows if row["condition"] in own and row["rank"] > NEAR)
    worst = heapq.nlargest(FAILURES, found, key=lambda row: row["rank"])
    return [
        _failed(
            row["topic"],
            row["label"],
            f"rank {row['rank']:,}; nearest: {row['nearest'][0]['topic']}",
        )
        for row in worst
    ]


def _failed(given: str, generated: str, detail: str) -> Pair:
    return Pair(
        visible(given), visible(generated) or EMPTY, visible(detail), "wrong", MARKS["wrong"]
    )


def own_conditions(results: Mapping[str, Any]) -> set[str]:
    """Conditions of naming, retrieval or taboo that are evaluated; the others are controls."""
    settings = results["settings"]
    if results["protocol"] == "naming":
        return {*adapters_of(results)}
    if results["protocol"] == "taboo":
        return {DESCRIPTION}
    return {*(settings.get("adapters") or ()), *(settings.get("labels") or ())}


_WORST: dict[str, tuple[str, Callable[[Mapping[str, Any], _Rows], list[Pair]], str]] = {
    "naming": (_LABELS, _wrong_names, "The first wrong labels that are shown."),
    "loss": (
        _EXAMPLES,
        _highest_losses,
        "Given labels with the highest loss through the adapter.",
    ),
    "retrieval": (_LABELS, _lowest_ranks, "Labels whose topic has the lowest rank."),
    "taboo": (_LABELS, _lowest_ranks, "Descriptions whose topic has the lowest rank."),
}
"""By protocol: the file of its rows, what takes the worst of them, and how."""
