"""Damaged published result and label files end in an error that names the file, or in scores."""

from __future__ import annotations

import io
import json
import math
from contextlib import redirect_stdout
from pathlib import Path

from fuzz.harness import run
from fuzz.mutations import damage_json
from letters import LettersEmbedder
from selfie_adapters.commands import eval_published
from selfie_adapters.commands.eval_published import published
from selfie_adapters.evaluation.published.hit_rates import read_result_file
from selfie_adapters.evaluation.published.labels import kind_of

TITLES = ("owl", "tea", "größer")
SAMPLES = [
    {"sample_index": 0, "per_token_activations": [9.0, 0.0, 2.5], "generated_text": "an owl"},
    {"sample_index": 1, "per_token_activations": [0.0, None], "error": None, "num_tokens": 2},
    {"sample_index": 2, "error": "no text", "per_token_activations": None},
]
GENERATED = [
    {
        "latent_index": latent,
        "scale_evaluations": [
            {"scale_value": scale, "generated_labels": [{"label": "a", "reward_samples": SAMPLES}]}
            for scale in (1.0, 2.5)
        ],
    }
    for latent in (3, 7)
]
GIVEN = [
    {"latent_index": latent, "label": text, "reward_samples": SAMPLES}
    for latent, text in ((3, "a"), (3, "größer 🦉"), (7, "b"))
]
LABELS = [
    {"latent_index": i, "label": title, "scale": scale, "label_index": 0}
    for i, title in enumerate(TITLES)
    for scale in (1.0, 2.0)
]
ENRICHED = [
    {"combined_index": i, "label": title, "original_global_index": i, "scale": 1.5}
    for i, title in enumerate(TITLES)
]
METADATA = {"dataset_name": "x/ten-thousand-things", "layer": 1}
RECALLS = {"recall_1": 0.25, "recall@10": 0.5, "100": 1.0}
DOCUMENTS = {
    "generator": {
        "evaluation_mode": "label_generator",
        "config": {"run_id": "r", "scales": [1.0, 2.5]},
        "shard_id": 0,
        "evaluations": GENERATED,
    },
    "dataset": {"evaluation_mode": "label_dataset_merged", "evaluations": GIVEN},
    "generation_only": {
        "evaluation_mode": "label_generation_only",
        "generated_labels_file": "/published/labels.json",
        "num_labels_generated": 6,
    },
    "labels": {"metadata": METADATA, "generated_labels": LABELS},
    "enriched": {"metadata": METADATA, "enriched_labels": ENRICHED},
    "summary": {"results_by_scale": {"1.0": {"n_labels": 5, "recalls": RECALLS, "mrr": 0.5}}},
    "ranks": [{"rank": 1, "label": "a"}, {"rank": 40}, {"rank": 7}],
}
FILES = {name: json.dumps(document).encode() for name, document in DOCUMENTS.items()}


def scores(path: Path, *, as_json: bool, **options) -> list[dict]:
    """What `selfie eval published` prints: rows, where it prints JSON."""
    with redirect_stdout(io.StringIO()) as printed:
        published(str(path), json=as_json, **options)
    assert printed.getvalue().encode().strip()
    return [json.loads(line) for line in printed.getvalue().splitlines()] if as_json else []


def test_damaged_published_files(tmp_path, monkeypatch):
    monkeypatch.setattr(eval_published, "SentenceEmbedder", lambda _name, device: LettersEmbedder())
    about = tmp_path / "about.json"
    about.write_text(json.dumps([{"original_global_index": i} for i in range(len(TITLES))]))
    topics = tmp_path / "topics.jsonl"
    topics.write_text("".join(json.dumps({"name": t, "labels": [t]}) + "\n" for t in TITLES))

    def read(path: Path) -> None:
        kind = kind_of(path)
        size = path.stat().st_size
        options = {}
        if kind == "labels" and (b"enriched_labels" in path.read_bytes() or size % 2):
            options = {"topics": str(topics), "metadata": str(about)}
        if kind == "results" and read_result_file(path).mode == "label_dataset":
            options = {"split_60": bool(size % 2)}
        # Tables take ten times as long as JSON.
        for row in scores(path, as_json=size % 8 != 0, **options):
            if "mean_max_hit_rate" in row:
                assert 0 <= row["low"] <= row["mean_max_hit_rate"] <= row["high"] <= 1
                assert len(row["per_latent"]) == row["latents"] <= row["labels"]
            if "condition" in row:
                assert 0 < row["mean_reciprocal_rank"]["mean"] <= 1
            if kind in ("ranks", "retrieval summary"):
                assert math.isfinite(row["mean_reciprocal_rank"])

    run(
        "published files",
        tmp_path,
        lambda rng: FILES[rng.choice(list(FILES))],
        damage_json,
        read,
        file="input.json",
    )
