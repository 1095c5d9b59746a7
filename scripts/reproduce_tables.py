"""From the results of reproduce.py to tables in Markdown."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from selfie_adapters.files import write_text

Found = dict[str, Any]


def write_tables(folder: Path) -> Path:
    """Write tables.md from the files in `folder`; returns its path."""
    about = _read(folder / "about.json")
    kinds = about["parameters"]
    parts = [
        *_loss(folder, kinds),
        *_retrieval(folder, kinds, about["shown"]),
        *_taboo(folder),
        *_scoring(folder, kinds),
        *_bridge(folder, about["shown"]),
        f"{about['machine']}; {about['versions']}. Size: {about['size']}.",
        f"Seconds: {_read(folder / 'seconds.json')}.",
    ]
    path = folder / "tables.md"
    write_text(path, "\n".join(parts) + "\n")
    return path


def _loss(folder: Path, kinds: dict[str, int]) -> Iterator[str]:
    columns = ("trained", "zero", "shuffled", "random", "untrained", "bias_share")
    for trained_on in ("topics", "sae"):
        cells = _read(folder / f"loss-{trained_on}/results.json")["cells"]
        by_place = {(cell["adapter"], cell["dataset"]): cell for cell in cells}
        other = "sae" if trained_on == "topics" else "topics"
        yield f"### Loss of held-out labels, adapters trained on {trained_on}\n"
        heads = ["kind", "numbers", *columns, f"trained, on {other}"]
        rows = []
        for kind, numbers in kinds.items():
            if kind == "identity":  # measured with every adapter, the same each time
                first = cells[0]["adapter"]
                losses = [
                    by_place[first, place]["loss"]["identity"] for place in (trained_on, other)
                ]
                blank = ["–"] * (len(columns) - 1)
                rows.append([kind, "0", _shown(losses[0]), *blank, _shown(losses[1])])
                continue
            own, foreign = by_place[kind, trained_on], by_place[kind, other]
            losses = own["loss"] | {"bias_share": own["bias_share"]}
            rows.append(
                [
                    kind,
                    f"{numbers:,}",
                    *(_shown(losses[column]) for column in columns),
                    _shown(foreign["loss"]["trained"]),
                ]
            )
        yield from _table(heads, rows)


def _retrieval(folder: Path, kinds: dict[str, int], shown: str) -> Iterator[str]:
    results = _read(folder / "retrieval/results.json")
    counts = results["counts"]
    yield f"### Retrieval: {counts['queries']} greedy labels among {counts['topics']} topics\n"
    wanted = {*kinds, "untrained", "training labels"}
    beside = f"{shown}: "
    yield from _recall(
        one
        for one in results["conditions"]
        if one["condition"] in wanted or one["condition"].startswith(beside)
    )


def _taboo(folder: Path) -> Iterator[str]:
    results = _read(folder / "taboo/results.json")
    counts = results["counts"]
    named = f"{results['answers_with_the_name']} of {counts['asked']} answers had the name in them"
    yield f"### Taboo: {counts['asked']} topics described without their name; {named}\n"
    yield from _recall(results["conditions"])


def _recall(conditions: Iterable[Found]) -> Iterator[str]:
    heads = ["condition", "recall@1, %", "recall@10, %", "recall@100, %", "reciprocal rank"]
    rows = []
    for one in conditions:
        recall = [_shown(one["recall_at"][k], 100, 1) for k in ("1", "10", "100")]
        rows.append([one["condition"], *recall, _shown(one["mean_reciprocal_rank"], 1, 3)])
    yield from _table(heads, rows)


def _scoring(folder: Path, kinds: dict[str, int]) -> Iterator[str]:
    yield "### Generation scoring with the demo SAE\n"
    heads = [
        "labels",
        "hits anywhere (published)",
        "hits on content",
        "false positives",
        "balanced accuracy",
        "AUROC",
    ]
    rows = []
    for kind in kinds:
        conditions = _read(folder / f"scoring-{kind}/results.json")["conditions"]
        for name, one in conditions.items():
            content = one["content"]["thresholds"][0]
            rows.append(
                [
                    kind if name == "trained" else f"{kind}: {name}",
                    _shown(one["published"]["best_of_n"]),
                    _shown(content["best_of_1"]),
                    _shown(content["false_positive_rate"]),
                    _shown(content["balanced_accuracy"]),
                    _shown(one["content"]["auroc"]),
                ]
            )
    yield from _table(heads, rows)


def _bridge(folder: Path, shown: str) -> Iterator[str]:
    results = _read(folder / "bridge/results.json")
    counts = results["counts"]
    yield (
        f"### Bridge entities: {counts['read']} of {counts['asked']} questions answered, "
        f"read with {shown}\n"
    )
    heads = ["condition", "decoded somewhere, %", "of labels, %", "trained minus it, points"]
    rows = []
    for one in results["conditions"]:
        less = results["trained minus"].get(one["condition"])
        rows.append(
            [
                one["condition"],
                _shown(one["decoded"], 100, 0),
                _shown(one["share_of_labels"], 100, 2),
                _shown(less, 100, 0),
            ]
        )
    yield from _table(heads, rows)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield f"|{'---|' * len(heads)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""


def _shown(interval: Found | None, factor: float = 1, digits: int = 2) -> str:
    if interval is None:
        return "–"
    mean, low, high = (factor * interval[key] for key in ("mean", "low", "high"))
    return f"{mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def _read(path: Path) -> Found:
    return json.loads(path.read_text(encoding="utf-8"))
