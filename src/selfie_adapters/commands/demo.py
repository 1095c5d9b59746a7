"""`selfie demo`: what the shipped adapter reads, its controls, a small training, one report."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from selfie_adapters.commands.demo_settings import (
    FULL,
    LAST_TOKEN,
    OWN_TOKEN,
    QUICK,
    SENTENCE,
    Size,
)
from selfie_adapters.commands.options import options
from selfie_adapters.commands.progress import progress_bars, steps_shown
from selfie_adapters.config.commands import DemoSettings
from selfie_adapters.errors import ConfigError
from selfie_adapters.extras import require_extra


@options(DemoSettings)
def demo(settings: DemoSettings, *, out: str = "demo") -> None:
    """Read a sentence and label test concepts with the shipped adapter, compare it with controls,
    train a small adapter, and write a report.

    Parameters
    ----------
    out
        Folder for everything that is made; what an earlier demo left there is replaced.
    """
    from selfie_adapters.commands.checking import check_inputs
    from selfie_adapters.files.locking import folder_lock

    require_extra("report", "selfie demo")
    check_inputs(device=settings.device)
    console = Console()
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; --out must name a folder.")
    with folder_lock(folder):
        if settings.train:
            from selfie_adapters.commands.demo_training import train_demo_adapter

            made = train_demo_adapter(folder, console, settings.device)
            console.print(f"adapter: {made}", highlight=False, markup=False)
        else:
            _run(console, folder, QUICK if settings.quick else FULL, settings.device)


def _run(console: Console, folder: Path, size: Size, device: str | None) -> None:
    import torch

    from selfie_adapters.adapters import load_adapter
    from selfie_adapters.adapters.locating import DEMO, find_adapter_file, mean_beside
    from selfie_adapters.commands.demo_measuring import Concepts, Measuring, captured, read_sentence
    from selfie_adapters.commands.demo_report import Results, write_results
    from selfie_adapters.commands.demo_terminal import (
        print_conditions,
        print_pairs,
        print_reading,
        print_training,
    )
    from selfie_adapters.commands.demo_training import train_small_adapter, write_training_file
    from selfie_adapters.model import load_model
    from selfie_adapters.reading.calibration import calibration

    took: dict[str, float] = {}
    began = time.perf_counter()
    adapter_file = find_adapter_file(DEMO)
    mean_file, confidence = mean_beside(adapter_file), calibration(adapter_file)
    with _timed(console, took, "load", "load SmolLM2-135M-Instruct and the shipped adapter"):
        model = load_model(DEMO, device_map=device)
        adapter = load_adapter(adapter_file, model.device)
    with _timed(console, took, "read", f"read token by token: {SENTENCE}"):
        reading = read_sentence(model, adapter, confidence, mean_file)
        print_reading(console, reading)
    concepts = Concepts.drawn(size)
    known = concepts.train[: size.probe]
    total = 2 * len(concepts.test) + len(known) + len(concepts.train) + len(concepts.val)
    with (
        _timed(console, took, "capture", f"capture {total} vectors"),
        progress_bars(console) as bars,
    ):
        task = bars.add_task("vectors", total=total)
        own, own_known, last, last_known, val = (
            captured(model, topics, place, mean_file, lambda more: bars.advance(task, more))
            for topics, place in (
                (concepts.test, OWN_TOKEN),
                (known, OWN_TOKEN),
                (concepts.test, LAST_TOKEN),
                (concepts.train, LAST_TOKEN),
                (concepts.val, LAST_TOKEN),
            )
        )
    names = [topic.title for topic in known]
    with steps_shown(console) as progress:
        measuring = Measuring(model, adapter, confidence, concepts.test, progress)
        with _timed(console, took, "label", "label test concepts: given → generated"):
            print_pairs(console, measuring.adapter(OWN_TOKEN, own), size.pairs)
        with _timed(console, took, "compare", "compare with controls"):
            places = [
                measuring.every(OWN_TOKEN, own, own_known, names),
                measuring.every(LAST_TOKEN, last, last_known[: len(known)], names),
            ]
            print_conditions(console, places)
    with _timed(console, took, "train", f"train {size.steps} steps: a scale and a bias"):
        topics = [*concepts.train, *concepts.val]
        labels_file = write_training_file(model, folder, topics, torch.cat([last_known, val]))
        run = train_small_adapter(console, model, labels_file, size)
        print_training(console, run)
    took["in all"] = time.perf_counter() - began
    results = Results(model.name, adapter, adapter_file, reading, places, run, size, took)
    console.print(f"report: {write_results(folder, results)}", highlight=False, markup=False)


@contextmanager
def _timed(console: Console, took: dict[str, float], what: str, title: str) -> Iterator[None]:
    console.print(title, style="bold", highlight=False, markup=False)
    started = time.perf_counter()
    yield
    took[what] = time.perf_counter() - started
    console.print(f"  {took[what]:.0f} s", style="dim", highlight=False)
