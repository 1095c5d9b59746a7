"""Result and label files in the published format, from the rows of a scoring evaluation."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from selfie_adapters.evaluation.folder import EvaluationRow
from selfie_adapters.evaluation.published.scoring import TranslatedScoring
from selfie_adapters.files import atomic_path
from selfie_adapters.files.json_lines import iter_jsonl

_SHARD = 0  # a local run is one shard


def write_published_results(run: TranslatedScoring, folder: str | Path) -> list[Path]:
    """Write eval_results_layer_{L}_{run_id}.json, and generated_labels_… where labels were written.

    folder: a finished evaluation's. Returns the files.
    """
    out = Path(folder)
    keys = {f"{run.condition}:{latent}": latent for latent in run.latents}
    rows = (row for _, row in iter_jsonl(out / "rows.jsonl"))
    of = {keys[row["key"]]: row["labels"] for row in rows if row["key"] in keys}
    published = run.published
    # Without run_id the time the evaluation began, the same each time it is resumed.
    began = time.localtime((out / "config.json").stat().st_mtime)
    run_id = published.run_id or time.strftime("%Y%m%d_%H%M%S", began)
    echo = published.model_dump(mode="json", by_alias=True)
    document: dict[str, Any] = {
        "evaluation_mode": published.evaluation_mode,
        "shard_id": _SHARD,
        "config": {key: v for key, v in echo.items() if not key.startswith("master_json_")},
    }
    files: list[Path] = []
    if published.evaluation_mode != "label_dataset":
        written = list(_written(run, of))
        files.append(out / _labels_name(run, run_id))
        _write(files[0], {"metadata": _metadata(run, run_id, echo), "generated_labels": written})
        document["generated_labels_file"] = files[0].name
        if published.evaluation_mode == "label_generation_only":
            document["num_labels_generated"] = len(written)
    if published.evaluation_mode != "label_generation_only":
        generated = published.evaluation_mode == "label_generator"
        rows_of = _generated if generated else _given
        document["evaluations"] = [
            row for latent in run.latents for row in rows_of(run, latent, of)
        ]
    name = f"eval_results_layer_{published.llm.sae_layer_number}_{run_id}.json"
    files.append(out / name)
    _write(files[-1], document)
    return files


def _labels_name(run: TranslatedScoring, run_id: str) -> str:
    published = run.published
    dataset = published.master_json_dataset_name.rpartition("/")[2]
    layer = published.master_json_layer
    return f"generated_labels_{dataset}_layer{layer}_shard{_SHARD:03d}_{run_id}.json"


def _metadata(run: TranslatedScoring, run_id: str, echo: Mapping[str, Any]) -> dict[str, Any]:
    published = run.published
    name = published.llm.sae_release.lower().replace("_", "")
    kinds = ("goodfire", "llamascope")
    generator = {
        key: value
        for key, value in echo["label_generator_config"].items()
        if key not in ("strip_last_quote", "reserved_token")
    }
    return {
        "dataset_name": published.master_json_dataset_name,
        "layer": published.master_json_layer,
        "sae_type": next((kind for kind in kinds if kind in name), "unknown"),
        "run_id": run_id,
        "scale_values": published.scale_values,
        "num_labels_per_scale": published.num_labels_per_scale,
        "evaluation_mode": published.evaluation_mode,
        "split": published.master_json_split,
        "label_generator_config": generator,
    }


def _by_scale(
    run: TranslatedScoring, labels: list[EvaluationRow]
) -> Iterator[tuple[float, list[EvaluationRow]]]:
    """The scales as the configuration has them, each with its labels: the order of the rows."""
    count = run.published.num_labels_per_scale
    for number, scale in enumerate(run.published.scale_values):
        yield scale, labels[number * count : (number + 1) * count]


def _written(
    run: TranslatedScoring, of: Mapping[int, list[EvaluationRow]]
) -> Iterator[EvaluationRow]:
    for latent in run.latents:
        for scale, labels in _by_scale(run, of[latent]):
            for number, label in enumerate(labels):
                yield {
                    "latent_index": latent,
                    "label": label["text"],
                    "scale": scale,
                    "label_index": number,
                }


def _generated(
    run: TranslatedScoring, latent: int, of: Mapping[int, list[EvaluationRow]]
) -> Iterator[EvaluationRow]:
    scales = [
        {
            "scale_value": scale,
            "generated_labels": [
                {
                    "label": label["text"],
                    "label_index": number,
                    "reward_samples": _samples(label["conversations"]),
                }
                for number, label in enumerate(labels)
            ],
        }
        for scale, labels in _by_scale(run, of[latent])
    ]
    yield {"latent_index": latent, "scale_evaluations": scales}


def _given(
    run: TranslatedScoring, latent: int, of: Mapping[int, list[EvaluationRow]]
) -> Iterator[EvaluationRow]:
    """One row per label; equal labels of a latent are one row with all their conversations."""
    conversations: dict[str, list[EvaluationRow]] = {}
    for label in of[latent]:
        conversations.setdefault(label["text"], []).extend(label["conversations"])
    for text, found in conversations.items():
        yield {"latent_index": latent, "label": text, "reward_samples": _samples(found)}


def _samples(conversations: list[EvaluationRow]) -> list[EvaluationRow]:
    return [
        {
            "sample_index": number,
            "error": one.get("error"),
            "per_token_activations": one.get("activations"),
            "num_tokens": one.get("tokens", 0),
            "generated_text": one["text"],
        }
        for number, one in enumerate(conversations)
    ]


def _write(path: Path, document: Mapping[str, Any]) -> None:
    """Compact: a line per number would make the file many times as long."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(msgspec.json.encode(document))
