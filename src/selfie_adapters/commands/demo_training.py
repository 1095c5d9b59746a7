"""What `selfie demo` trains: the smallest adapter in a minute; with --train, the shipped ones.

The smallest one, a scale and a bias, shows how adapters are made. Of the shipped set "demo", one
adapter for all blocks and positions comes first; then, on more nouns, specialists for the last
token after one block. These answer the question after three examples: with them the start is right
more often, and training learns faster. Stopped and run again, it resumes.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import Tensor

from selfie_adapters.adapters.locating import mean_beside
from selfie_adapters.adapters.specialists import specialist_file
from selfie_adapters.commands.demo_settings import (
    BATCH,
    CHAT,
    LAST_TOKEN,
    LEARNING_RATE,
    PLACEHOLDER,
    TEMPLATE,
    Size,
)
from selfie_adapters.commands.progress import count_shown
from selfie_adapters.config import TrainConfig
from selfie_adapters.config.prepare import QUESTION, TopicSettings
from selfie_adapters.dataset import Item, Section, load_dataset, save_dataset
from selfie_adapters.files import atomic_path
from selfie_adapters.model import FrozenModel, load_model
from selfie_adapters.sources.topics.dataset import write_topic_dataset
from selfie_adapters.sources.topics.reading import more_topics, packaged_topics
from selfie_adapters.sources.topics.topic import Topic
from selfie_adapters.training import resume, train
from selfie_adapters.training.run_reading import Run, read_run
from selfie_adapters.training.stopping import part_of_another_command

LAYERS = (8, 12, 16, 20, 24, 28)
FURTHER = 3000  # nouns in addition to the 8,000 that have a split: to train on
FURTHER_OF_SPECIALISTS = 12_000
STEPS = 2600  # of 64 examples
SPECIALISTS: dict[tuple[int, str], int] = {
    (12, "-1"): 500,
    (16, "-1"): 500,
    (20, "-1"): 250,
    (24, "-1"): 350,
}
"""Steps of 32 examples, by block and kind of position."""
_QUESTION, _ANSWER = TEMPLATE.rsplit("\n", 1)
WITH_EXAMPLES = "\n".join(
    (
        _QUESTION,
        " ".join(
            _ANSWER.replace(PLACEHOLDER, word) + f'{word}".'
            for word in ("lantern", "kitchen sink", "patience")
        )
        + f" {_ANSWER}",
    )
)
SEED = 0


def train_demo_adapter(folder: Path, console: Console, device: str | None = None) -> Path:
    """Capture and train; returns the file of the set's general adapter; its means are next to it.

    Two hours and a half on one core of a Xeon with AMX. Raises TrainingStopped if it is stopped;
    calling it again resumes.
    """
    model = load_model("demo", device_map=device, job="training")
    few, more = folder / "reading.json", folder / "more.json"
    capture_nouns(console, model, FURTHER, few)
    general = trained_by(console, model, recipe(few, folder))
    capture_nouns(console, model, FURTHER_OF_SPECIALISTS, more)
    final = folder / "demo" / "demo.safetensors"
    made = {final: general}
    for place in SPECIALISTS:
        trained = trained_by(console, model, specialist_recipe(more, folder, place))
        made[specialist_file(final, *place)] = trained
    made[mean_beside(final)] = more.with_name("more_mean.safetensors")
    final.parent.mkdir(exist_ok=True)
    for target, source in made.items():
        with atomic_path(target) as temporary:
            temporary.write_bytes(source.read_bytes())
    return final


def demo_topics(further: int = FURTHER) -> list[Topic]:
    """The packaged nouns with their splits, and further ones to train on, drawn at random."""
    more = more_topics()
    random.Random(SEED).shuffle(more)
    topics = [*packaged_topics(), *more[:further]]
    # Names alone; synonyms are known to WordNet, by which labels are judged.
    return [replace(topic, labels=(topic.title,)) for topic in topics]


def capture_nouns(console: Console, model: FrozenModel, further: int, labels_file: Path) -> None:
    """Make the training file of the packaged nouns and `further` ones, unless it is there."""
    if labels_file.exists():  # it is written last, when all it needs is there
        return
    topics = demo_topics(further)
    console.print(f"[bold]capture the states of {len(topics)} nouns[/]", highlight=False)
    settings = TopicSettings(layers=LAYERS, chat="bare", positions=(-1, "name"), seed=SEED)
    with count_shown(console, "vectors") as progress:
        write_topic_dataset(model, topics, settings, labels_file, progress, overwrite=True)


def trained_by(console: Console, model: FrozenModel, recipe: dict[str, Any]) -> Path:
    """The final adapter of a run with this recipe, which is begun, resumed, or finished already."""
    config = TrainConfig.model_validate(recipe)
    run = Path(config.training.checkpoint_dir) / config.experiment_name
    final = run / "adapter_final.safetensors"
    if final.exists():
        return final
    console.print(f"[bold]train {config.experiment_name}[/]", highlight=False)
    with part_of_another_command():
        if (run / "adapter_last.safetensors").exists():
            resume(run, model=model, console=console)
        else:
            train(config, model, load_dataset(config.data.labels_file), console, overwrite=True)
    return final


def recipe(labels_file: Path, folder: Path) -> dict[str, Any]:
    """The general adapter's configuration: that of training/configs/smollm2_reading.yaml."""
    return {
        "experiment_name": "reading",
        "model": {"name": "demo"},
        "data": {"labels_file": str(labels_file), "batch_size": 64},
        "projection": {"type": "full_rank", "init_scale": 5.0, "init": "closed_form"},
        "soft_prompt": {"template": TEMPLATE, "reserved_token": PLACEHOLDER},
        "training": {
            "learning_rate": 0.03,
            "direction_learning_rate": 0.003,
            "num_epochs": 50,
            "max_steps": STEPS,
            "validation_every_n_steps": 400,
            "val_fraction": 0.05,
            "checkpoint_dir": str(folder),
        },
    }


def specialist_recipe(labels_file: Path, folder: Path, place: tuple[int, str]) -> dict[str, Any]:
    """The general recipe on the vectors of one place, and a tenth of vectors without a concept."""
    layer, kind = place
    here, null = (f"{labels_file.stem}_at_{which}@l{layer}" for which in (kind, "null"))
    general, steps = recipe(labels_file, folder), SPECIALISTS[place]
    data = {
        "batch_size": 32,
        "train_dataset_ratios": [
            {"datasets": here, "ratio": 0.9},
            {"datasets": null, "ratio": 0.1},
        ],
        "val_dataset_ratios": [{"datasets": here, "ratio": 1.0}],
    }
    training = {"max_steps": steps, "validation_every_n_steps": steps // 2, "val_fraction": 0.4}
    return {
        **general,
        "experiment_name": f"layer_{layer}_at_{kind}",
        "seed": SEED,
        "data": {**general["data"], **data},
        "soft_prompt": {"template": WITH_EXAMPLES, "reserved_token": PLACEHOLDER},
        "training": {**general["training"], **training},
    }


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
            "projection": {"type": "scalar_affine", "init_scale": 5.0, "init": "closed_form"},
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
