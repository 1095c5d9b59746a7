"""From the results of reproduce.py to tables in Markdown: what `selfie eval` prints, for each step
with its command; the kinds of adapters over seeds; failures drawn at random."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from reproduce_kinds import KINDS, rate_losses
from reproduce_sizes import SIZES, Size, TrainingPoint

from selfie_adapters.evaluation.base import find_protocol
from selfie_adapters.evaluation.loss.results import loss_reports
from selfie_adapters.evaluation.naming.results import merged as merged_names
from selfie_adapters.evaluation.retrieval.tables import merged
from selfie_adapters.evaluation.tables import Table, one_line, shown
from selfie_adapters.files import write_text
from selfie_adapters.files.json_lines import read_jsonl

Found = dict[str, Any]
FAILURES = 20
OMITTED = "omitted.json"
"""Command of a step that failed → names of the steps that were omitted for it."""
_CONTROLS = ("zero", "shuffled", "random")


def write_tables(folder: Path, size: str) -> Path:
    """Write tables.md from the steps that are done; returns its path."""
    steps = _read(folder / "steps.json") if (folder / "steps.json").exists() else {}
    steps = dict(sorted(steps.items(), key=lambda step: step[1].get("number", 0)))
    parts = [line for step in steps.values() for line in _step(folder, step)]
    for place in SIZES[size].places:
        parts += _kinds(folder, SIZES[size], place)
    parts += _failures(folder)
    parts += _omitted(folder)
    parts += _times(steps)
    path = folder / "tables.md"
    write_text(path, "\n".join(parts) + "\n")
    return path


def _step(folder: Path, step: Found) -> Iterator[str]:
    """What `selfie eval` prints about the step's results."""
    results = folder / step["makes"]
    if not step["title"] or not results.exists():
        return
    found = _read(results)
    protocol = step["command"].split()[2]
    yield f"### {step['title']}\n"
    yield f"`{step['command']}`\n"
    yield f"{step['machine']}; {step['seconds']} s.\n"
    for one in find_protocol(protocol).report(found):
        if isinstance(one, Table):
            yield from _table(one)
        else:
            yield f"- {one}"
    yield ""


def _table(one: Table) -> Iterator[str]:
    if one.title:
        yield f"\n**{one.title}**" + (f" ({one.caption})" if one.caption else "") + "\n"
    yield from _rows(one.columns, one.rows)


def _rows(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield f"|{'---|' * len(heads)}"
    for row in rows:
        yield f"| {' | '.join(map(_cell, row))} |"
    yield ""


def _cell(text: str) -> str:
    """A table's cell holds neither a line end nor the mark that ends it."""
    return one_line(text.replace("|", "/"))


def _kinds(folder: Path, size: Size, place: TrainingPoint) -> Iterator[str]:
    """Every kind at one place: loss, recall at 1 and names over seeds, with seeds as a level."""
    protocols = ("loss", "retrieval", "naming")
    found = [_read_results(folder / f"{name}_{place.name}") for name in protocols]
    if found == [None] * len(protocols):
        return
    losses = {one.subject.name: one.loss for one in loss_reports(found[0])} if found[0] else {}
    recalls = {one["condition"]: one["recall_at"]["1"] for one in merged(found[1] or _NOTHING)}
    named = found[2]["positions"][0] if found[2] else _NOTHING
    exact = {one["condition"]: one["share"]["exact"] for one in merged_names(named)}
    seeds = len(size.seeds)
    yield f"### Every kind at {place.name.replace('_', ' ')}, position {place.position}\n"
    yield (
        f"Test nouns, {seeds} seeds: 95 % intervals with seeds as a level, lowest and highest seed "
        "in parentheses; rates chosen on validation nouns with the first seed.\n"
    )
    heads = ["kind", "rate (validation loss)", "loss", *_CONTROLS, "recall@1, %", "shuffled, %"]
    heads += ["named exactly, %", "shuffled, %"]
    rows = []
    for kind in KINDS:
        loss = losses.get(kind, {})
        row = [kind, _tried(folder, size, place, kind)]
        row += [shown(loss.get(condition)) for condition in ("trained", *_CONTROLS)]
        of_seeds = [f"{kind}{control}, {seeds} seeds" for control in ("", ": shuffled")]
        shares = (of.get(name) for of in (recalls, exact) for name in of_seeds)
        rows.append([*row, *(shown(one, 0, 100) for one in shares)])
    for name in ("untrained", "logit lens", "ridge probe", "training labels"):
        shared = next(iter(losses.values()), {}).get(name)
        if name in recalls or name in exact or shared is not None:
            last = [cell for of in (recalls, exact) for cell in (shown(of.get(name), 0, 100), "–")]
            rows.append([name, "–", shown(shared), *["–"] * len(_CONTROLS), *last])
    yield from _rows(heads, rows)


_NOTHING: Found = {"conditions": []}


def _read_results(folder: Path) -> Found | None:
    path = folder / "results.json"
    return _read(path) if path.exists() else None


def _tried(folder: Path, size: Size, place: TrainingPoint, kind: str) -> str:
    losses = rate_losses(folder, size, place, kind)
    best = min(losses, key=lambda rate: losses[rate])
    listed = ", ".join(f"{rate:g}: {loss:.2f}" for rate, loss in losses.items())
    return f"{best:g} ({listed})"


def _failures(folder: Path) -> Iterator[str]:
    """Wrong labels of the shipped set, drawn at random with a fixed seed from all of them."""
    path = folder / "naming/labels.jsonl"
    if not path.exists():
        return
    wrong = [
        row
        for row in read_jsonl(path)
        if row["condition"] == "adapter" and row["name"] and row["verdict"] == "wrong"
    ]
    drawn = random.Random(0).sample(wrong, min(FAILURES, len(wrong)))
    yield f"### {len(drawn)} of the {len(wrong)} wrong labels of the shipped set, at random\n"
    yield from _rows(
        ["block", "position", "given", "generated", "shown"],
        [
            [
                str(row["layer"]),
                row["position"],
                row["name"],
                row["generated"],
                "yes" if row["shown"] else "withheld",
            ]
            for row in drawn
        ],
    )


def _omitted(folder: Path) -> Iterator[str]:
    """Steps that were not run, and the command without which they could not be."""
    found = _read(folder / OMITTED) if (folder / OMITTED).exists() else {}
    for command, names in found.items():
        yield (
            f"Omitted: {' and '.join(names)}, because this failed (it needs npm and network): "
            f"`{command}`. Run it, then `make reproduce` again.\n"
        )


def _times(steps: Found) -> Iterator[str]:
    """Where and how long each step ran."""
    yield "### Steps\n"
    spent = sum(one["processor_seconds"] for one in steps.values()) / 60
    clock = _clock(steps.values()) / 60
    at_once = max((one.get("at_once", 1) for one in steps.values()), default=1)
    yield (
        f"{clock:.0f} minutes by the clock, {spent:.0f} of processor time; at most {at_once} "
        f"step{'' if at_once == 1 else 's'} at once.\n"
    )
    rows = [
        [
            name,
            f"{one['seconds']}{' (resumed)' if one['resumed'] else ''}",
            str(one["processor_seconds"]),
            one["machine"],
        ]
        for name, one in steps.items()
    ]
    yield from _rows(["step", "seconds", "of a processor", "machine"], rows)
    yield from dict.fromkeys(_versions(one["versions"]) for one in steps.values())


def _clock(steps: Iterable[Found]) -> float:
    """Seconds during which a step ran."""
    seconds, end = 0.0, 0.0
    for one in sorted(steps, key=_started):
        ended = _started(one) + one["seconds"]
        seconds += max(0.0, ended - max(end, _started(one)))
        end = max(end, ended)
    return seconds


def _started(step: Found) -> float:
    return step.get("started", 0.0)  # absent in folders of earlier versions


def _versions(found: Found) -> str:
    return ", ".join(f"{name} {version}" for name, version in found.items())


def _read(path: Path) -> Found:
    return json.loads(path.read_text(encoding="utf-8"))
