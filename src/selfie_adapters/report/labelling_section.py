"""A labelling run as a section of a page: labels, controls, reliability, failures."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import UNSET

from selfie_adapters.errors import SelfieError
from selfie_adapters.labelling.confidence import Confidence
from selfie_adapters.labelling.finished_run import FinishedRun, open_run
from selfie_adapters.labelling.rows import LabelRow
from selfie_adapters.labelling.run_record import read_binding, read_controls
from selfie_adapters.labelling.summary import LabelCounts, controls_sentence
from selfie_adapters.output import EMPTY, visible
from selfie_adapters.report.figures import reliability_diagram
from selfie_adapters.report.label_table import (
    MARKS,
    LabelMeasure,
    ShownLabel,
    label_table,
    number_text,
)
from selfie_adapters.report.pieces import (
    Drawing,
    Estimate,
    Facts,
    Gallery,
    Intervals,
    Pair,
    Piece,
    RunSection,
    Sentences,
    shown_facts,
)
from selfie_adapters.statistics import bootstrap_mean, reliability

FAILURES = 24
_FEWEST_IN_BINS = 50  # labels below which this run's own reliability is noise
_FEWEST_FOR_INTERVAL = 2


def labelling_section(folder: Path, name: str, table: str) -> RunSection:
    """The section of the labelling run in `folder`. table: the label table's name on the page.

    Raises what reading the run raises.
    """
    run = open_run(folder)
    counts = LabelCounts()
    measured = _RightByConfidence(run.settings.confidence is not None)
    piece = label_table(
        table,
        "Labels",
        _shown(run, counts, measured),
        measured.measure,
        "✓ equal to the given label (letter case and whitespace aside), ✗ different, · withheld. "
        "Choose a row for its details.",
    )
    pieces: list[Piece] = [] if piece is None else [piece]
    lines = [one for one in (counts.sentence(), controls_sentence(folder)) if one is not None]
    if run.missing:
        lines.append(
            f"{run.missing:,} of {run.record.vectors:,} vectors are not labelled yet: run the same "
            "selfie label command again."
        )
    if failed := run.record.vectors - run.missing - counts.vectors:
        lines.append(f"{failed:,} vectors could not be labelled.")
    pieces.append(Sentences(lines, "In short"))
    if gallery := measured.gallery():
        pieces.append(gallery)
    pieces += _controls(folder)
    pieces += _reliability(run, measured)
    pieces.append(Facts(_facts(run), "How this was made"))
    binding = read_binding(folder)
    model = run.settings.model if binding is None else binding.model
    return RunSection(
        name, f"labels of {run.record.vectors:,} vectors", visible(model or ""), pieces
    )


class _RightByConfidence:
    """What is gathered while the labels go by: failures, and confidence against truth."""

    def __init__(self, calibrated: bool) -> None:
        self.measure: LabelMeasure = "confidence" if calibrated else "gain"
        self.confidences: list[float] = []
        self.right: list[bool] = []
        self._failures: list[tuple[float, int, Pair]] = []

    def add(self, row: LabelRow, shown: ShownLabel) -> None:
        if not isinstance(row.equal, bool):
            return
        if isinstance(row.confidence, float):
            self.confidences.append(row.confidence)
            self.right.append(row.equal)
        if row.equal or shown.withheld or shown.value is None:
            return
        detail = f"{self.measure} {number_text(shown.value, self.measure)}"
        pair = Pair(
            visible(shown.given or ""), visible(row.label) or EMPTY, detail, "wrong", MARKS["wrong"]
        )
        entry = (shown.value, -row.index, pair)
        if len(self._failures) < FAILURES:
            heapq.heappush(self._failures, entry)
        elif entry[:2] > self._failures[0][:2]:
            heapq.heapreplace(self._failures, entry)

    def gallery(self) -> Gallery | None:
        if not self._failures:
            return None
        pairs = [pair for *_, pair in sorted(self._failures, key=lambda one: one[:2], reverse=True)]
        return Gallery(
            "Failures",
            pairs,
            f"Labels that differ from the given one, highest {self.measure} first. A synonym also "
            "counts as different.",
        )


def _shown(
    run: FinishedRun, counts: LabelCounts, measured: _RightByConfidence
) -> Iterator[ShownLabel]:
    sure = measured.measure == "confidence"
    for row, details in _leading(run):
        counts.add(row)
        withheld = isinstance(row.withheld, str)
        verdict = str(row.withheld) if withheld else ""
        if not withheld and isinstance(row.equal, bool):
            verdict = "equal" if row.equal else "different"
        confidence = row.confidence if isinstance(row.confidence, float) else None
        shown = ShownLabel(
            row.index,
            row.label,
            confidence if sure else row.gain,
            row.dataset if isinstance(row.dataset, str) else "",
            row.given if isinstance(row.given, str) else None,
            verdict,
            withheld,
            row.gain if sure else None,
            details,
        )
        measured.add(row, shown)
        yield shown


def _leading(run: FinishedRun) -> Iterator[tuple[LabelRow, tuple[tuple[str, str], ...]]]:
    """As `FinishedRun.leading`, each with what its vector's other rows add."""
    for _, group in groupby(run.rows(), key=lambda row: row.name):
        rows = [row for row in group if isinstance(row, LabelRow)]
        if rows:
            yield min(rows, key=lambda row: 0 if row.rank is UNSET else row.rank), concepts(rows)


def concepts(rows: Sequence[Any]) -> tuple[tuple[str, str], ...]:
    """Of a vector whose concepts were read one after another: what the first one explains, and the
    further ones. rows: of the vector."""
    found = []
    for row in rows:
        number, share = getattr(row, "concept_number", UNSET), getattr(row, "explained", UNSET)
        if isinstance(number, int) and isinstance(share, float):
            found.append((number, row.label or EMPTY, share))
    if not found:
        return ()
    (_, _, first), *others = sorted(found)
    named = ", ".join(f"{label} ({share:.0%})" for _, label, share in others)
    explained = ("explained", f"{first:.0%} of the vector")
    return (explained, ("further concepts", named)) if named else (explained,)


def _controls(folder: Path) -> list[Piece]:
    controls = read_controls(folder)
    if not controls:
        return []
    rows = []
    for one in controls:
        own = one.kind == "vectors of this run"
        if len(one.gains) < _FEWEST_FOR_INTERVAL:
            rows.append(Estimate(one.kind, one.gain, own=own, meaning=_count(one.vectors)))
            continue
        found = bootstrap_mean(one.gains)
        rows.append(Estimate(one.kind, found.mean, found.low, found.high, own, _count(one.vectors)))
    note = "Gain of each vector's best label over the zero vector: mean, 95 % bootstrap interval."
    return [Intervals("Controls", "gain, nats per token", rows, note)]


def _count(vectors: int) -> str:
    return f"{vectors} vector" + ("" if vectors == 1 else "s")


def _reliability(run: FinishedRun, measured: _RightByConfidence) -> list[Piece]:
    """Of the calibration's held-out labels, and of this run's own where they can be judged."""
    found: list[Piece] = []
    if (bins := _calibration_bins(run)) is not None:
        title = "Reliability of the calibration on its held-out labels"
        found.append(Drawing(title, reliability_diagram(bins), title))
    if len(measured.confidences) >= _FEWEST_IN_BINS:
        own = reliability(np.array(measured.confidences), np.array(measured.right, dtype=float))
        title = "Reliability in this run: share of labels equal to the given one"
        found.append(Drawing(title, reliability_diagram(own), title))
    return found


def _calibration_bins(run: FinishedRun) -> list[dict[str, float]] | None:
    if run.settings.confidence is None:
        return None
    try:
        bins = Confidence.load(run.settings.confidence).measured.get("reliability")
        return [
            {key: float(one[key]) for key in ("predicted", "right")} for one in bins or ()
        ] or None
    except (SelfieError, KeyError, TypeError, ValueError):
        return None  # moved or changed since: the run itself is complete without it


def _facts(run: FinishedRun) -> dict[str, str]:
    settings, binding = run.settings, read_binding(run.folder)
    versions = {} if binding is None else binding.versions or {}
    adapter = run.record.inputs.get("adapter")
    digest = f" (SHA-256 {adapter[:12]}…)" if adapter else ""
    return shown_facts(
        {
            "model": settings.model,
            "dtype": settings.dtype,
            "adapter": f"{settings.adapter or 'none: untrained SelfIE'}{digest}",
            "vectors": f"{settings.source}, {run.record.vectors:,}",
            "mean subtracted": settings.mean,
            "calibration": settings.confidence,
            "labels": f"{settings.labels_per_vector} per vector, scales "
            f"{', '.join(f'{scale:g}' for scale in settings.scales)}, temperature "
            f"{settings.temperature:g}, at most {settings.max_new_tokens} tokens",
            "best label": run.record.ranking and f"by {run.record.ranking}",
            "engine": settings.engine,
            "seed": settings.seed,
            "prompt": None if binding is None else binding.template,
            "versions": ", ".join(f"{name} {version}" for name, version in versions.items())
            or None,
            "folder": run.folder,
        }
    )
