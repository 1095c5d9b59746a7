"""`selfie demo`: the whole main job on a real small model and real concepts, with no network."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from selfie_adapters.commands.demo_settings import (
    CANDIDATES,
    FULL,
    LAYER,
    LEARNING_RATE,
    PLACEHOLDER,
    QUICK,
    RANK,
    TEMPLATE,
    Size,
)
from selfie_adapters.commands.progress import progress_bars
from selfie_adapters.errors import ConfigError
from selfie_adapters.extras import require_extra

if TYPE_CHECKING:
    from selfie_adapters.commands.demo_report import Labelled
    from selfie_adapters.evaluation import ConditionResult


def demo(*, out: str = "demo", quick: bool = False, device: str | None = None) -> None:
    """Capture vectors, train an adapter, label held-out concepts, compare with controls, report.

    Parameters
    ----------
    out
        Folder for everything that is made; what an earlier demo left there is replaced.
    quick
        A tenth of the data and a few steps: shows the way, proves nothing.
    device
        Where the model goes: cpu, cuda, cuda:1, mps, auto; default: the first GPU, else the CPU.
    """
    from selfie_adapters.commands.checking import check_inputs
    from selfie_adapters.locking import folder_lock

    require_extra("report", "selfie demo")
    check_inputs(device=device)
    console = Console()
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; --out must name a folder.")
    with folder_lock(folder):
        _run(console, folder, QUICK if quick else FULL, device)


def _run(console: Console, folder: Path, size: Size, device: str | None) -> None:
    from selfie_adapters.commands.demo_report import print_table, verdict, write_report
    from selfie_adapters.files import write_json
    from selfie_adapters.model import load_model

    took: dict[str, float] = {}
    began = time.perf_counter()
    with _timed(console, took, "load SmolLM2-135M-Instruct"):
        model = load_model("demo", device_map=device)
    with _timed(console, took, f"capture {size.topics} vectors"):
        labels_file = _capture(console, model, size, folder)
    with _timed(console, took, "train"):
        run, dataset = _train(console, model, size, folder, labels_file)
    with _timed(console, took, "label held-out concepts"):
        labelled = _label(model, run, dataset, folder, size)
    with _timed(console, took, "compare with controls"):
        results = _compare(console, model, run, labelled, size)
    write_json(folder / "results.json", [result.as_dict() for result in results])
    took["in all"] = time.perf_counter() - began
    write_report(folder, run, results, labelled, size, took)
    print_table(console, results)
    console.print(verdict(results), highlight=False)
    console.print(f"report: {folder / 'report.html'}", highlight=False)


@contextmanager
def _timed(console: Console, took: dict[str, float], what: str) -> Iterator[None]:
    console.print(f"[bold]{what}[/]", highlight=False)
    started = time.perf_counter()
    yield
    took[what] = time.perf_counter() - started
    console.print(f"  {took[what]:.0f} s", style="dim", highlight=False)


def _capture(console: Console, model: Any, size: Size, folder: Path) -> Path:
    import random

    from selfie_adapters.sources.topic_dataset import write_topic_dataset
    from selfie_adapters.sources.topic_sites import TopicSettings
    from selfie_adapters.sources.topics import Topic, packaged_topics

    topics = packaged_topics()
    random.Random(0).shuffle(topics)
    # Names and synonyms, without the glosses: twice as quick a step, and names are what is asked.
    topics = [
        Topic(tuple(label for label in topic.labels if ", " not in label), name=topic.name)
        for topic in topics[: size.topics]
    ]
    settings = TopicSettings((LAYER,), chat="bare", val_fraction=size.held_out / len(topics))
    with progress_bars(console) as progress:
        task = progress.add_task("vectors", total=len(topics))
        return write_topic_dataset(
            model,
            topics,
            settings,
            folder / "topics.json",
            lambda done, _total: progress.update(task, completed=done),
            overwrite=True,
        )


def _train(console: Console, model: Any, size: Size, folder: Path, labels_file: Path) -> Any:
    from selfie_adapters.config import TrainConfig
    from selfie_adapters.dataset import load_dataset
    from selfie_adapters.training import train

    config = TrainConfig.model_validate(
        {
            "experiment_name": "run",
            "model": {"name": "demo"},
            "data": {"labels_file": str(labels_file), "batch_size": 64},
            "projection": {
                "type": "scalar_affine_plus_low_rank",
                "low_rank_rank": RANK,
                "init_scale": 5.0,
                "init": "closed_form",
            },
            "soft_prompt": {"template": TEMPLATE, "reserved_token": PLACEHOLDER},
            "training": {
                "learning_rate": LEARNING_RATE,
                "num_epochs": 2,
                "max_steps": size.steps,
                "validation_every_n_steps": size.steps,
                "checkpoint_dir": str(folder),
            },
        }
    )
    dataset = load_dataset(labels_file)
    return train(config, model, dataset, console, overwrite=True), dataset


def _label(model: Any, run: Path, dataset: Any, folder: Path, size: Size) -> Labelled:
    import torch

    from selfie_adapters.adapters import load_adapter
    from selfie_adapters.commands.demo_report import Labelled
    from selfie_adapters.json_lines import append_jsonl
    from selfie_adapters.labelling import Labeller

    items = dataset.labelled("val")[: size.held_out]
    vectors = dataset.gather(
        torch.tensor([item.section for item in items]), torch.tensor([item.row for item in items])
    )
    adapter = load_adapter(run / "adapter_final.safetensors")
    answers = Labeller(model, adapter).label(vectors, max_new_tokens=12)
    names = [item.labels[0] for item in items]
    known = [list(item.labels) for item in items]
    labels = [answer[0] for answer in answers]
    path = folder / "labels.jsonl"
    path.unlink(missing_ok=True)
    for name, answer in zip(names, labels, strict=True):
        append_jsonl(path, {"concept": name, "label": answer.text, "log_prob": answer.log_prob})
    return Labelled(vectors, names, known, labels)


def _compare(
    console: Console, model: Any, run: Path, labelled: Labelled, size: Size
) -> list[ConditionResult]:
    from selfie_adapters.adapters import load_adapter
    from selfie_adapters.evaluation import compare_with_controls
    from selfie_adapters.model import SoftPrompt

    prompt = SoftPrompt(TEMPLATE, PLACEHOLDER).bind(model.tokenizer)
    adapter = load_adapter(run / "adapter_final.safetensors")
    with console.status("") as status:
        return compare_with_controls(
            model,
            prompt,
            adapter,
            labelled.vectors,
            labelled.names,
            CANDIDATES,
            size.groups,
            progress=lambda doing: status.update(f"  {doing}"),
        )
