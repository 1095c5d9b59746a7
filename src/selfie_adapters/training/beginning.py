"""Where a run begins, and whether a checkpoint is of this run."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from selfie_adapters.adapters import load_adapter
from selfie_adapters.errors import ConfigError, TrainingError
from selfie_adapters.training.closed_form import PROBES, closed_form_start
from selfie_adapters.training.run_folder import RunFolder
from selfie_adapters.training.setup import Setup
from selfie_adapters.training.starting import start_from_file
from selfie_adapters.training.state import Progress


@dataclass(frozen=True)
class Start:
    """Optimizer steps done, best validation loss so far, and the event that tells of it."""

    step: int = 0
    best: float | None = None
    event: dict[str, Any] | None = None
    """None where the adapter begins at its initial values."""


def first_state(setup: Setup, optimizer: torch.optim.Optimizer) -> Start:
    """Move the adapter to where it begins: the file that is named, or the configured start.

    Raises ConfigError for a file that is past the run's end, and as start_from_file does.
    """
    config, adapter, total = setup.config, setup.adapter, setup.order.total_steps
    source = config.training.resume_from_checkpoint
    if source is not None:
        step, best, told = start_from_file(source, adapter, optimizer)
        if step >= total and adapter.num_parameters():
            raise ConfigError(
                f"training.resume_from_checkpoint: {source} is at step {step} and this run ends "
                f"at step {total}. Raise training.num_epochs or training.max_steps."
            )
        return Start(step, best, {"event": "start", "line": told, "step": step})
    if config.projection.init == "published":
        return Start()
    train = setup.train
    found = closed_form_start(
        adapter,
        setup.validator.objective,
        train.vectors,
        train.tokens,
        train.examples.labels,
        train.vector_of,
        _to_start_from(setup),
        config.seed,
    )
    line = f"closed-form start: loss {found.loss:.4f} on {PROBES} examples"
    return Start(event={"event": "closed_form", "line": line, "step": 0, **asdict(found)})


def _to_start_from(setup: Setup) -> Tensor:
    """Examples that training takes; those without a concept only where there are no others."""
    members, sections = setup.order.members(), setup.train.dataset.sections
    null = torch.tensor([section.metadata["vector_type"] == "null" for section in sections])
    concepts = members[~null[setup.train.examples.section[members]]]
    return concepts if len(concepts) else members


def check_same_run(setup: Setup, run: RunFolder, progress: Progress, examples: str) -> None:
    """Raise TrainingError or BindingError unless data, length and model are still the same.

    progress: of the newest checkpoint; examples: digest of the training examples now.
    """
    if progress.examples != examples:
        raise TrainingError(
            f"{setup.config.data.labels_file}: the training examples are not those that "
            f"{run.path} began with. Put the file back, or start a new run."
        )
    if progress.total_steps != setup.order.total_steps:
        raise TrainingError(
            f"{run.config_file} means {setup.order.total_steps} steps in all; the run began with "
            f"{progress.total_steps}. Undo the change, or start a new run from "
            "training.resume_from_checkpoint."
        )
    if run.adapter("last").exists():
        before = load_adapter(run.adapter("last")).binding
        if before is not None and setup.adapter.binding is not None:
            before.check(setup.adapter.binding)
