"""Why short trainings are set up as they are: a run per choice, on the same held-out concepts.

    python benchmarks/demo_choices.py --out choices          # every choice: 25 minutes on 2 cores
    python benchmarks/demo_choices.py --out choices lr-0.01          # only the named

Each run changes one thing of a baseline: layer, position, prompt, adapter kind, start,
learning rate. A row of choices/results.jsonl holds the loss of held-out names, trained and for the
zero vector and shuffled vectors, with intervals; choices that have a row are not run again.
"""

from __future__ import annotations

import argparse
import random
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from rich.console import Console

from selfie_adapters.adapters import load_adapter
from selfie_adapters.commands.demo_settings import LAYER, LEARNING_RATE, TEMPLATE
from selfie_adapters.config import TrainConfig
from selfie_adapters.config.prepare import TopicSettings
from selfie_adapters.dataset import load_dataset
from selfie_adapters.dataset.controls import shuffle_order
from selfie_adapters.errors import ConfigError, nearest
from selfie_adapters.evaluation import bootstrap_mean
from selfie_adapters.files.json_lines import append_jsonl, read_jsonl
from selfie_adapters.model import FrozenModel, SoftPrompt, load_model
from selfie_adapters.sources.topics.dataset import write_topic_dataset
from selfie_adapters.sources.topics.reading import Topic, packaged_topics
from selfie_adapters.training import label_losses, train

PLACEHOLDER = "<reponame>"
PUBLISHED = (  # the published question in this model's chat format: two sites
    '<|im_start|>user\nWhat is the meaning of "<reponame>"?<|im_end|>\n'
    '<|im_start|>assistant\nThe meaning of "<reponame>" is "'
)
CONCEPTS = 4000
HELD_OUT = 180
RANK = 32


@dataclass(frozen=True)
class Choice:
    """What one run is trained with. position is that of the vectors, layer their block."""

    layer: int = LAYER
    position: int = -1
    template: str = TEMPLATE
    kind: str = "scalar_affine_plus_low_rank"
    learning_rate: float = LEARNING_RATE
    start: str = "closed_form"


BASELINE = Choice()
CHOICES = {
    "baseline": BASELINE,
    "published-prompt": replace(BASELINE, template=PUBLISHED),
    "scalar-affine": replace(BASELINE, kind="scalar_affine"),
    "full-rank": replace(BASELINE, kind="full_rank", learning_rate=0.003),
    "lr-0.01": replace(BASELINE, learning_rate=0.01),
    "layer-16": replace(BASELINE, layer=16),
    "layer-28": replace(BASELINE, layer=28),
    "after-the-name": replace(BASELINE, position=-6),
    "published-start": replace(BASELINE, start="published"),
    "published": Choice(
        template=PUBLISHED, kind="scalar_affine", learning_rate=0.01, start="published"
    ),
}


def capture(model: FrozenModel, position: int, folder: Path) -> Path:
    """Vectors of all concepts at every layer that a choice names; made once per position."""
    file = folder / f"at{position}/topics.json"
    if not file.exists():
        topics = packaged_topics()
        random.Random(0).shuffle(topics)
        topics = [
            Topic(tuple(label for label in topic.labels if ", " not in label), name=topic.name)
            for topic in topics[:CONCEPTS]
        ]
        layers = tuple(sorted({c.layer for c in CHOICES.values() if c.position == position}))
        share = HELD_OUT / len(topics)
        settings = TopicSettings(
            layers=layers, chat="bare", positions=(position,), val_fraction=share
        )
        write_topic_dataset(model, topics, settings, file, overwrite=True)
    return file


def run(name: str, model: FrozenModel, folder: Path, steps: int) -> dict[str, object]:
    choice = CHOICES[name]
    labels_file = capture(model, choice.position, folder)
    only = [{"datasets": f"topics@l{choice.layer}", "ratio": 1.0}]
    config = TrainConfig.model_validate(
        {
            "experiment_name": name,
            "model": {"name": "demo"},
            "data": {
                "labels_file": str(labels_file),
                "batch_size": 64,
                "train_dataset_ratios": only,
                "val_dataset_ratios": only,
            },
            "projection": {
                "type": choice.kind,
                "low_rank_rank": RANK,
                "init_scale": 5.0,
                "init": choice.start,
            },
            "soft_prompt": {"template": choice.template, "reserved_token": PLACEHOLDER},
            "training": {
                "learning_rate": choice.learning_rate,
                "num_epochs": 2,
                "max_steps": steps,
                "validation_every_n_steps": steps,
                "checkpoint_dir": str(folder / "runs"),
            },
        }
    )
    dataset = load_dataset(labels_file)
    started = time.perf_counter()
    path = train(config, model, dataset, Console(stderr=True), overwrite=True)
    seconds = time.perf_counter() - started
    section = next(i for i, s in enumerate(dataset.sections) if s.layer == choice.layer)
    items = [item for item in dataset.labelled("val") if item.section == section]
    rows = torch.tensor([item.row for item in items])
    vectors = dataset.sections[section].vectors[rows].float()
    names = [item.labels[0] for item in items]
    adapter = load_adapter(path / "adapter_final.safetensors")
    prompt = SoftPrompt(choice.template, PLACEHOLDER)
    conditions = {
        "trained": vectors,
        "zero vector": torch.zeros_like(vectors),
        "shuffled": vectors[shuffle_order(len(vectors), 0)],
    }
    with torch.no_grad():
        losses = {
            condition: str(bootstrap_mean(label_losses(model, prompt, adapter, x, names).numpy()))
            for condition, x in conditions.items()
        }
    return {"choice": name, **asdict(choice), "steps": steps, "seconds": round(seconds), **losses}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", help=f"of: {', '.join(CHOICES)}")
    parser.add_argument("--out", type=Path, default=Path("choices"))
    parser.add_argument("--steps", type=int, default=40)
    options = parser.parse_args()
    for name in options.names:
        if name not in CHOICES:
            raise ConfigError(f"unknown choice {name}. {nearest(name, CHOICES)}")
    table = options.out / "results.jsonl"
    done = {row["choice"] for row in read_jsonl(table)} if table.exists() else set()
    model = load_model("demo")
    for name in options.names or CHOICES:
        if name not in done:
            append_jsonl(table, run(name, model, options.out, options.steps))
            print(table.read_text(encoding="utf-8").splitlines()[-1], flush=True)


if __name__ == "__main__":
    main()
