"""Which start and which rates reach a lower held-out loss on the same number of examples.

    python benchmarks/quality.py --out quality run      # what is missing of all runs, one by one
    python benchmarks/quality.py --out quality run --arm closed_form --seed 0     # one of them
    python benchmarks/quality.py --out quality table    # compare what is there, draw the curves

SmolLM2 and the project's own nouns as in `selfie demo` (vectors of block 24, names and synonyms as
labels, the demo's prompt). Every run of an adapter kind sees the same number of examples. Losses
are on held-out concepts' names, differences paired by concept and averaged over seeds, intervals by
bootstrap over concepts.
"""

from __future__ import annotations

import argparse
import json
import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from selfie_adapters.adapters import load_adapter
from selfie_adapters.commands.demo_settings import LAYER, PLACEHOLDER, TEMPLATE
from selfie_adapters.config import TrainConfig
from selfie_adapters.config.prepare import TopicSettings
from selfie_adapters.dataset import VectorLabelDataset, load_dataset
from selfie_adapters.files import write_json
from selfie_adapters.files.json_lines import read_jsonl
from selfie_adapters.model import FrozenModel, SoftPrompt, load_model
from selfie_adapters.sources.topics.dataset import write_topic_dataset
from selfie_adapters.sources.topics.reading import Topic, packaged_topics
from selfie_adapters.statistics import bootstrap_mean
from selfie_adapters.training import label_losses, train

EXAMPLES = 960  # a run: 60 steps of 16
BATCH = 16
HELD_OUT = 400
NAMES = 200  # held-out concepts
SEEDS = (0, 1, 2)
KINDS: dict[str, dict[str, Any]] = {
    "scalar_affine": {},
    "scalar_affine_plus_low_rank": {"low_rank_rank": 32},
    "full_rank": {},
}
# What differs from the published settings (AdamW at 0.01, cosine, 10 steps of warm-up, clip 0.5).
ARMS: dict[str, dict[str, dict[str, Any]]] = {
    "published": {},
    "scale_0.8": {"projection": {"init_scale": 0.8}},  # what the closed form chose for the scale
    "rate_0.03": {"training": {"learning_rate": 0.03}},
    "batch_32": {"data": {"batch_size": 32}},
    "closed_form": {"projection": {"init": "closed_form"}},
    "closed_form_rate_0.03": {
        "projection": {"init": "closed_form"},
        "training": {"learning_rate": 0.03},
    },
}


def topics_file(folder: Path, model: FrozenModel) -> Path:
    """The demo's training file, captured once."""
    path = folder / "topics.json"
    if not path.exists():
        topics = packaged_topics()
        random.Random(0).shuffle(topics)
        named = [
            Topic(tuple(label for label in topic.labels if ", " not in label), name=topic.name)
            for topic in topics
        ]
        settings = TopicSettings(layers=(LAYER,), chat="bare", val_fraction=HELD_OUT / len(named))
        write_topic_dataset(model, named, settings, path, overwrite=True)
    return path


def run_folder(out: Path, kind: str, arm: str, seed: int) -> Path:
    return out / "runs" / f"{kind}-{arm}-{seed}"


def one_run(
    out: Path, model: FrozenModel, dataset: VectorLabelDataset, kind: str, arm: str, seed: int
) -> None:
    """Train, then write the loss of each held-out name into the run folder."""
    folder = run_folder(out, kind, arm, seed)
    changes = ARMS[arm]
    batch = changes.get("data", {}).get("batch_size", BATCH)
    steps = EXAMPLES // batch
    config = TrainConfig.model_validate(
        {
            "experiment_name": folder.name,
            "seed": seed,
            "model": {"name": model.name},
            "data": {"labels_file": str(out / "topics.json"), "batch_size": batch},
            "projection": {
                "type": kind,
                "init_scale": 5.0,
                **KINDS[kind],
                **changes.get("projection", {}),
            },
            "soft_prompt": {"template": TEMPLATE, "reserved_token": PLACEHOLDER},
            "training": {
                "max_steps": steps,
                "validation_every_n_steps": steps // 4,
                "val_fraction": 0.15,
                "checkpoint_dir": str(folder.parent),
                **changes.get("training", {}),
            },
        }
    )
    train(config, model, dataset, overwrite=True)
    items = dataset.labelled("val")[:NAMES]
    vectors = dataset.gather(
        torch.tensor([item.section for item in items]), torch.tensor([item.row for item in items])
    )
    with torch.no_grad():
        losses = label_losses(
            model,
            SoftPrompt(TEMPLATE, PLACEHOLDER),
            load_adapter(folder / "adapter_final.safetensors"),
            vectors,
            [item.labels[0] for item in items],
        )
    write_json(folder / "names.json", losses.tolist())
    print(f"{folder.name}: {float(losses.mean()):.3f}", flush=True)


def names_of(out: Path, kind: str, arm: str) -> dict[int, np.ndarray]:
    """seed → losses of the names [names], of the runs that are there."""
    files = {seed: run_folder(out, kind, arm, seed) / "names.json" for seed in SEEDS}
    return {
        seed: np.array(json.loads(file.read_text(encoding="utf-8")))
        for seed, file in files.items()
        if file.exists()
    }


def curve_of(out: Path, kind: str, arm: str) -> list[tuple[int, float]]:
    """(examples seen, validation loss), the mean over seeds."""
    seen: dict[int, list[float]] = {}
    batch = ARMS[arm].get("data", {}).get("batch_size", BATCH)
    for seed in names_of(out, kind, arm):
        for row in read_jsonl(run_folder(out, kind, arm, seed) / "metrics.jsonl"):
            if row["event"] == "validation":
                seen.setdefault(row["step"] * batch, []).append(row["val_loss"])
    return [(examples, float(np.mean(losses))) for examples, losses in sorted(seen.items())]


def table(out: Path) -> None:
    """Print a Markdown table, and draw the curves into curves.png."""
    print(f"{EXAMPLES} examples, {NAMES} held-out names, nats per token; one number per seed\n")
    print(
        "| adapter | arm | validation loss by quarters | loss of the names | less than published |"
    )
    print("|---|---|---|---|---|")
    curves: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for kind in KINDS:
        base = names_of(out, kind, "published")
        for arm in ARMS:
            losses = names_of(out, kind, arm)
            paired = [seed for seed in losses if seed in base]
            if not paired:
                continue
            curve = curve_of(out, kind, arm)
            curves.setdefault(kind, {})[arm] = curve
            along = " ".join(f"{loss:.2f}" for _, loss in curve)
            seeds = " ".join(f"{losses[seed].mean():.2f}" for seed in paired)
            gains = np.mean([base[seed] - losses[seed] for seed in paired], axis=0)
            gain = bootstrap_mean(gains) if arm != "published" else ""
            print(f"| {kind} | {arm} | {along} | {seeds} | {gain} |")
    draw(curves, out / "curves.png")


def draw(curves: dict[str, dict[str, list[tuple[int, float]]]], path: Path) -> None:
    figure = Figure(figsize=(4 * len(curves), 3), layout="constrained")
    panels = figure.subplots(1, len(curves), squeeze=False)[0]
    for axes, (kind, arms) in zip(panels, curves.items(), strict=True):
        for arm, curve in arms.items():
            axes.plot(*zip(*curve, strict=True), "o-", markersize=3, label=arm)
        axes.set_title(kind, fontsize=9, loc="left")
        axes.set_xlabel("examples")
        axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--arm", choices=ARMS)
    parser.add_argument("--kind", choices=KINDS)
    parser.add_argument("--seed", type=int, choices=SEEDS)
    parser.add_argument("what", choices=("run", "table"))
    options = parser.parse_args()
    if options.what == "table":
        table(options.out)
        return
    warnings.simplefilter("ignore", FutureWarning)
    options.out.mkdir(parents=True, exist_ok=True)
    model = load_model("demo")
    dataset = load_dataset(topics_file(options.out, model))
    for kind in [options.kind] if options.kind else KINDS:
        for arm in [options.arm] if options.arm else ARMS:
            for seed in [options.seed] if options.seed is not None else SEEDS:
                if not (run_folder(options.out, kind, arm, seed) / "names.json").exists():
                    one_run(options.out, model, dataset, kind, arm, seed)


if __name__ == "__main__":
    main()
