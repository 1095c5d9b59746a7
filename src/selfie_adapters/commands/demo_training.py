"""How the shipped adapter "demo" is made: `selfie demo --train`.

Stopped and run again, it resumes.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from selfie_adapters.commands.demo_settings import PLACEHOLDER, TEMPLATE
from selfie_adapters.commands.progress import progress_bars

if TYPE_CHECKING:
    from selfie_adapters.model import FrozenModel
    from selfie_adapters.sources import Topic

LAYERS = (8, 12, 16, 20, 24, 28)
FURTHER = 3000  # nouns beside the 8,000 that have a split: to train on
STEPS = 2600  # of 64 examples
SEED = 0


def train_demo_adapter(folder: Path, console: Console, device: str | None = None) -> Path:
    """Capture, train, and calibrate; returns the adapter's file, with means and calibration beside.

    80 minutes on one core of a Xeon with AMX that other work shared. Raises TrainingStopped if it
    is stopped; calling it again resumes.
    """
    from selfie_adapters.adapters.locating import mean_beside
    from selfie_adapters.files import atomic_path
    from selfie_adapters.model import load_model

    model = load_model("demo", device_map=device, job="training")
    topics = demo_topics()
    labels_file = folder / "reading.json"
    if not labels_file.exists():  # it is written last, when all it needs is there
        console.print(f"[bold]capture the states of {len(topics)} nouns[/]", highlight=False)
        _capture(console, model, topics, labels_file)
    console.print("[bold]train[/]")
    adapter = _train(console, model, labels_file, folder)
    with atomic_path(mean_beside(adapter)) as temporary:
        temporary.write_bytes((folder / "reading_mean.safetensors").read_bytes())
    return adapter


def demo_topics() -> list[Topic]:
    """The packaged nouns with their splits, and further ones to train on, drawn at random."""
    import random

    from selfie_adapters.sources.topics.reading import more_topics, packaged_topics

    more = more_topics()
    random.Random(SEED).shuffle(more)
    topics = [*packaged_topics(), *more[:FURTHER]]
    # Names alone; synonyms are known to WordNet, by which labels are judged.
    return [replace(topic, labels=(topic.title,)) for topic in topics]


def _capture(console: Console, model: FrozenModel, topics: list[Topic], labels_file: Path) -> None:
    from selfie_adapters.sources.topics.dataset import write_topic_dataset
    from selfie_adapters.sources.topics.sites import TopicSettings

    settings = TopicSettings(LAYERS, chat="bare", positions=(-1, "name"), seed=SEED)
    with progress_bars(console) as progress:
        task = progress.add_task("vectors", total=None)
        write_topic_dataset(
            model,
            topics,
            settings,
            labels_file,
            lambda done, total: progress.update(task, completed=done, total=total),
            overwrite=True,
        )


def _train(console: Console, model: FrozenModel, labels_file: Path, folder: Path) -> Path:
    from selfie_adapters.config import TrainConfig
    from selfie_adapters.dataset import load_dataset
    from selfie_adapters.training import resume, train

    run = folder / "reading"
    final = run / "adapter_final.safetensors"
    if final.exists():
        return final
    if (run / "adapter_last.safetensors").exists():
        resume(run, model=model, console=console)
        return final
    config = TrainConfig.model_validate(recipe(labels_file, folder))
    train(config, model, load_dataset(labels_file), console, overwrite=True)
    return final


def recipe(labels_file: Path, folder: Path) -> dict[str, Any]:
    """The training configuration: that of training/configs/smollm2_reading.yaml."""
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
