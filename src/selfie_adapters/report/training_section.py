"""A training run as a section of a page: sampled labels, loss curve, configuration."""

from __future__ import annotations

from pathlib import Path

import msgspec

from selfie_adapters.files.json_lines import iter_jsonl
from selfie_adapters.output import visible
from selfie_adapters.report.figures import loss_curve
from selfie_adapters.report.pieces import (
    Drawing,
    Facts,
    Gallery,
    PageTable,
    Pair,
    Piece,
    RunSection,
    Sentences,
    TableRow,
    shown_facts,
)
from selfie_adapters.training.run_reading import Run, read_run

_FACTS = {
    "model.name": "model",
    "model.dtype": "dtype",
    "data.labels_file": "training file",
    "data.batch_size": "batch size",
    "projection.type": "adapter",
    "soft_prompt.template": "prompt",
    "training.learning_rate": "learning rate",
    "training.scheduler_type": "schedule",
    "training.optimizer_type": "optimizer",
    "training.num_epochs": "epochs",
    "training.max_steps": "steps at most",
    "seed": "seed",
}


class _Sample(msgspec.Struct):
    label: str
    written: str


class _Samples(msgspec.Struct):
    step: int
    samples: list[_Sample]


def training_section(folder: Path, name: str) -> RunSection:
    """The section of the training run in `folder`. Raises what reading the run raises."""
    run = read_run(folder)
    pieces: list[Piece] = []
    if (samples := _samples(folder)) is not None:
        pairs = [Pair(visible(one.label), visible(one.written)) for one in samples.samples]
        pieces.append(Gallery(f"Labels after step {samples.step:,}: given → generated", pairs))
    pieces.append(Sentences([_summary(run)], "In short"))
    if run.training:
        title = "Loss by optimizer step, nats per token"
        curve = loss_curve(
            list(run.training), list(run.training.values()), sorted(run.validation.items())
        )
        pieces.append(Drawing(title, curve, title))
    if run.validation:
        best = None if run.best is None else run.best[0]
        rows = [
            TableRow(f"{step:,}", [f"{loss:.4f}"], own=step == best)
            for step, loss in sorted(run.validation.items())[-12:]
        ]
        pieces.append(PageTable("Validation", ["step", "loss, nats per token"], rows))
    facts = {label: run.config.get(key) for key, label in _FACTS.items()}
    pieces.append(Facts(shown_facts({**facts, "folder": run.path}), "How this was made"))
    kind = run.config.get("projection.type") or "an adapter"
    what = f"training of {kind}, {run.steps:,} steps"
    return RunSection(name, what, visible(str(run.config.get("model.name") or "")), pieces)


def _summary(run: Run) -> str:
    state = "Finished" if run.finished else "Not finished"
    text = f"{state} after {run.steps:,} steps."
    if run.best is not None:
        step, loss = run.best
        text += f" Lowest validation loss {loss:.4f} nats per token, at step {step:,}."
    return text


def _samples(folder: Path) -> _Samples | None:
    """The last labels that the run sampled."""
    last = None
    for _, row in iter_jsonl(folder / "metrics.jsonl"):
        if row.get("event") == "samples":
            last = row
    try:
        return None if last is None else msgspec.convert(last, _Samples)
    except msgspec.ValidationError:
        return None
