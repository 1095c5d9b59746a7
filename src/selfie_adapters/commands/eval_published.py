"""`selfie eval published FILES…`: scores of published result files and label files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from selfie_adapters.commands.eval_running import print_report
from selfie_adapters.commands.options import Json, options
from selfie_adapters.commands.printing import print_json, print_line
from selfie_adapters.config.commands import PublishedSettings
from selfie_adapters.errors import ConfigError, DataError, SelfieError
from selfie_adapters.evaluation.published.hit_rates import (
    ResultFile,
    evaluations,
    mean_max_hit_rate,
    merged,
    missing_shards,
    read_result_file,
)
from selfie_adapters.evaluation.published.labels import (
    LabelsFile,
    RetrievalScore,
    kind_of,
    look_up,
    read_labels_file,
    read_ranks,
    read_retrieval_summary,
    strategy_named,
)
from selfie_adapters.evaluation.retrieval.embedding import SentenceEmbedder
from selfie_adapters.evaluation.retrieval.tables import report_conditions
from selfie_adapters.evaluation.retrieval.targets import entries_of
from selfie_adapters.evaluation.tables import Table
from selfie_adapters.sources import open_topics
from selfie_adapters.statistics import bootstrap_mean

_SPLIT = 6  # labels of ten conversations that --split-60 makes of one
_SEED = 0


@options(PublishedSettings)
def published(settings: PublishedSettings, *, json: Json = False) -> None:
    """Scores of published result files (hit rates) and label files (retrieval)."""
    files = settings.files
    if not files:
        raise ConfigError("selfie eval published: give at least one file.")
    kinds = {file: kind_of(file) for file in files}
    results = [read_result_file(file) for file in files if kinds[file] == "results"]
    groups = evaluations(results)
    if settings.split_60:
        for one in results:
            if one.mode != "label_dataset":
                raise ConfigError(
                    f"--split-60: {one.path} is of mode {one.mode}; only label_dataset files have "
                    "60 conversations per label."
                )
    strategy = strategy_named(settings.index)
    rows: list[dict[str, Any]] = [
        _hit_rate(group, _SPLIT if settings.split_60 else 1) for group in groups
    ]
    for file in files:
        if kinds[file] == "retrieval summary":
            rows += [_retrieval(file, score) for score in read_retrieval_summary(file)]
        elif kinds[file] == "ranks":
            rows.append(_retrieval(file, read_ranks(file)))
        elif kinds[file] == "labels":
            labels = read_labels_file(file, settings.metadata)
            joined = any(one.topic is not None for one in labels.labels)
            if not joined and settings.topics is None:
                rows.append(_counted(labels))
                continue
            entries = entries_of(open_topics(settings.topics or labels.topics))
            scored = look_up(
                labels,
                entries,
                strategy,
                SentenceEmbedder(settings.embedder, device=settings.device),
                settings.scales,
            )
            rows += [
                {"file": file, "scale": scale, "index": settings.index, **one.summary(_SEED)}
                for scale, one in scored.items()
            ]
    if json:
        print_json(rows)
        return
    _print(Console(), rows)


def _hit_rate(group: Sequence[ResultFile], split: int) -> dict[str, Any]:
    """One evaluation's hit rate; label counts alone where labels were only written."""
    first = group[0]
    row: dict[str, Any] = {"files": [str(one.path) for one in group], "mode": first.mode}
    if (missing := missing_shards(group)) > 0:
        row["missing_shards"] = missing
    if first.mode == "label_generation_only":
        return {**row, "labels": sum(_written(one) for one in group)}
    latents = merged(group)
    if not latents:
        raise DataError(f"{first.path}: no latents to take a mean over.")
    found = mean_max_hit_rate(latents, split)
    interval = bootstrap_mean(list(found.per_latent.values()), _SEED)
    return {
        **row,
        "latents": len(latents),
        "labels": sum(map(len, latents.values())),
        "conversations": sum(len(one.hits) for of in latents.values() for one in of),
        "split": split,
        "mean_max_hit_rate": found.mean,
        "low": interval.low,
        "high": interval.high,
        "per_latent": {str(latent): score for latent, score in found.per_latent.items()},
    }


def _written(one: ResultFile) -> int:
    """Labels of a label_generation_only file: as it states, or as its labels file has them."""
    if one.label_count is not None or one.labels_file is None:
        return one.label_count or 0
    try:
        return len(read_labels_file(one.path.parent / Path(one.labels_file).name).labels)
    except SelfieError as error:
        raise DataError(
            f"{one.path}: num_labels_generated is not stated, and the file of the labels cannot be "
            f"counted instead: {error}"
        ) from error


def _counted(labels: LabelsFile) -> dict[str, Any]:
    return {
        "file": str(labels.path),
        "labels": len(labels.labels),
        "latents": len({one.latent for one in labels.labels}),
        "scales": sorted({one.scale for one in labels.labels}),
    }


def _retrieval(file: str, score: RetrievalScore) -> dict[str, Any]:
    return {"file": file, **asdict(score)}


def _print(console: Console, rows: Sequence[dict[str, Any]]) -> None:
    scored = [row for row in rows if "mean_max_hit_rate" in row]
    if scored:
        names = [", ".join(Path(file).name for file in row["files"]) for row in scored]
        split = [" (split 60)" if row["split"] > 1 else "" for row in scored]
        table = Table(
            "mean over latents of the best label's hit rate (95 % intervals)",
            ["files", "mode", "latents", "labels", "hit rate"],
            [
                [
                    name,
                    row["mode"] + how,
                    str(row["latents"]),
                    str(row["labels"]),
                    f"{row['mean_max_hit_rate']:.6f}\n{row['low']:.3f} to {row['high']:.3f}",
                ]
                for name, how, row in zip(names, split, scored, strict=True)
            ],
            names=2,
        )
        print_report(console, table)
    for row in rows:
        if row.get("missing_shards"):
            print_line(
                f"{row['files'][0]}: {row['missing_shards']} shards of its evaluation are not given"
            )
        if row.get("mode") == "label_generation_only":
            print_line(
                f"{', '.join(row['files'])}: {row['labels']} labels, no conversations to score"
            )
        elif "scales" in row:
            listed = ", ".join(f"{scale:g}" for scale in row["scales"])
            print_line(
                f"{row['file']}: {row['labels']} labels of {row['latents']} latents at scales "
                f"{listed}. To look them up among topics, give --metadata and --topics."
            )
        elif isinstance(row.get("mean_reciprocal_rank"), float):
            recalls = ", ".join(f"@{k} {100 * v:.2f} %" for k, v in row["recall_at"].items())
            print_line(
                f"{row['file']}, {row['name']}: {row['labels']} labels, recall {recalls}, "
                f"mean reciprocal rank {row['mean_reciprocal_rank']:.4f}"
            )
    by_file: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if "condition" in row:
            by_file.setdefault(row["file"], []).append(row)
    for file, conditions in by_file.items():
        title = f"{Path(file).name}, index {conditions[0]['index']}"
        print_report(console, report_conditions(title, {"conditions": conditions}, ()))
