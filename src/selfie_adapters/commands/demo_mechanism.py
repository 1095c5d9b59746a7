"""The smallest adapter, trained in a minute: a scale and a bias, to show how adapters are made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from torch import Tensor

from selfie_adapters.commands.demo_settings import (
    BATCH,
    LAST_TOKEN,
    LEARNING_RATE,
    PLACEHOLDER,
    TEMPLATE,
    Size,
)
from selfie_adapters.commands.demo_vectors import CHAT
from selfie_adapters.config import TrainConfig
from selfie_adapters.config.topics import QUESTION
from selfie_adapters.dataset import Item, Section, load_dataset, save_dataset
from selfie_adapters.model import FrozenModel
from selfie_adapters.sources.topics.topic import Topic
from selfie_adapters.training import train
from selfie_adapters.training.run_reading import Run, read_run
from selfie_adapters.training.stopping import part_of_another_command

KIND = "scalar_affine"


def write_training_file(
    model: FrozenModel, folder: Path, topics: Sequence[Topic], vectors: Tensor
) -> Path:
    """Write topics.json and vectors [topics, d_model], each labelled with its topic's name."""
    items = [Item(i, [topic.title], topic.split or "train") for i, topic in enumerate(topics)]
    metadata = {
        "dataset_name": "topics",
        "filename": f"topics_l{LAST_TOKEN.layer}.safetensors",
        "layer": LAST_TOKEN.layer,
        "source": "topics",
        "vector_type": "topic",
        "model": model.name,
        "model_dim": model.d_model,
        "question": QUESTION,
        "chat": CHAT,
        "position": LAST_TOKEN.position,
    }
    path = folder / "topics.json"
    save_dataset(path, [Section(metadata, vectors, items)], overwrite=True)
    return path


def train_small_adapter(console: Console, model: FrozenModel, labels_file: Path, size: Size) -> Run:
    """Train a scalar affine adapter on the file's vectors, in the folder `run` next to it."""
    config = TrainConfig.model_validate(
        {
            "experiment_name": "run",
            "model": {"name": "demo"},
            "data": {"labels_file": str(labels_file), "batch_size": BATCH},
            "projection": {"type": KIND, "init_scale": 5.0, "init": "closed_form"},
            "soft_prompt": {"template": TEMPLATE, "reserved_token": PLACEHOLDER},
            "training": {
                "learning_rate": LEARNING_RATE,
                "num_epochs": 2,
                "max_steps": size.steps,
                "validation_every_n_steps": max(1, size.steps // 2),
                "checkpoint_dir": str(labels_file.parent),
            },
        }
    )
    with part_of_another_command():
        return read_run(train(config, model, load_dataset(labels_file), console, overwrite=True))
