"""Where a run starts: at initial values, at the closed form, or from an adapter file.

An adapter file (`training.resume_from_checkpoint`) may be a published `.pt`. Its numbers become the
start and its step the first step: the learning rate and the order of examples are functions of the
step. Published adapter files hold no optimizer state, and the optimizer's averages then start from
zero; a `.pt` that holds it continues with it.

A run that resumes checks that it is still the same run: digests of content, not of files, so a file
that was moved, converted or downloaded again is still the same. Rows of vectors that no label uses
do not count.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from selfie_adapters.adapters import Adapter, find_adapter_file, load_adapter
from selfie_adapters.adapters.containers import read_container
from selfie_adapters.errors import ConfigError, MissingFileError, TrainingError
from selfie_adapters.files import sha256
from selfie_adapters.model.fingerprint import weights_digest
from selfie_adapters.tensor_files.tensors import Unusable, plain
from selfie_adapters.training.checkpoints import TrainingState, check_optimizer_state
from selfie_adapters.training.closed_form import PROBES, closed_form_start
from selfie_adapters.training.epochs import SplitExamples
from selfie_adapters.training.run_folder import RunFolder
from selfie_adapters.training.setup import Setup

# Names under which trainers save torch's own state dictionaries.
_OPTIMIZER = ("optimizer_state_dict", "optimizer_state", "optimizer")
_SCHEDULE = ("scheduler_state_dict", "scheduler_state", "scheduler")
_BLOCK_ROWS = 4096  # vectors that are hashed at once


@dataclass(frozen=True)
class Start:
    """Optimizer steps done, best validation loss so far, and the event that reports it."""

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
        step, best, line = start_from_file(source, adapter, optimizer)
        if step >= total and adapter.num_parameters():
            raise ConfigError(
                f"training.resume_from_checkpoint: {source} is at step {step} and this run ends "
                f"at step {total}. Raise training.num_epochs or training.max_steps."
            )
        return Start(step, best, {"event": "start", "line": line, "step": step})
    if config.projection.init == "published":
        return Start()
    train = setup.train
    found = closed_form_start(
        adapter,
        setup.unsmoothed,
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


def start_from_file(
    path: str | Path, adapter: Adapter, optimizer: torch.optim.Optimizer
) -> tuple[int, float | None, str]:
    """Give `adapter` (and `optimizer`, where the file can) the state of an adapter file.

    Returns the optimizer steps done, the best validation loss, and a line for the user. Raises
    ConfigError if the file holds another kind of adapter than the one configured, TrainingError if
    its optimizer state does not fit.
    """
    file = find_adapter_file(path)
    saved = load_adapter(file)
    wanted = {name: list(p.shape) for name, p in adapter.named_parameters()}
    found = {name: list(p.shape) for name, p in saved.named_parameters()}
    if saved.kind != adapter.kind or found != wanted:
        raise ConfigError(
            f"training.resume_from_checkpoint: {file} holds a {saved.kind} of width {saved.dim} "
            f"and rank {saved.low_rank_rank}; the configuration requests {adapter.kind}, width "
            f"{adapter.dim}, rank {adapter.low_rank_rank}. Set projection to what the file holds."
        )
    if saved.normalize_input != adapter.normalize_input:
        raise ConfigError(
            f"training.resume_from_checkpoint: {file} was trained with normalize_input "
            f"{saved.normalize_input}. Set projection.normalize_input to that."
        )
    with torch.no_grad():
        for name, parameter in adapter.named_parameters():
            parameter.copy_(dict(saved.named_parameters())[name])
    header, _ = read_container(file)
    step = saved.record.global_step
    schedule = _first(header, _SCHEDULE)
    last = None if schedule is None else schedule.get("last_epoch")
    if isinstance(last, int) and 0 <= last < 2**53:
        step = last  # counts optimizer steps, whatever global_step counts
    state = _first(header, _OPTIMIZER)
    if state is None:
        state_line = "it holds no optimizer state, so the optimizer's averages start from zero"
    else:
        _restore_optimizer(state, adapter, optimizer, file)
        state_line = "with its optimizer state"
    return (
        step,
        saved.record.best_val_loss,
        f"continues from {file}, step {step} ({state_line})",
    )


def _first(header: Mapping[str, Any], names: tuple[str, ...]) -> Mapping[str, Any] | None:
    return next((header[name] for name in names if isinstance(header.get(name), dict)), None)


def _restore_optimizer(
    saved: Mapping[str, Any], adapter: Adapter, optimizer: torch.optim.Optimizer, file: Path
) -> None:
    """Take over torch's state dictionary, whichever groups its trainer had made.

    Parameters are numbered there, not named: each takes the first unused entry of its shape.
    """
    entries: Any = saved.get("state")
    if not isinstance(entries, dict) or not all(
        isinstance(number, int) and isinstance(entry, dict) for number, entry in entries.items()
    ):
        raise TrainingError(f"{file}: its optimizer state is not one that torch writes.")
    unused = [entries[number] for number in sorted(entries)]
    for name, parameter in adapter.named_parameters():
        fitting = [
            entry
            for entry in unused
            if any(_shape(value) == parameter.shape for value in entry.values())
        ]
        if not fitting:
            raise TrainingError(
                f"{file}: its optimizer state has nothing of the shape of {name}, "
                f"{list(parameter.shape)}. Was it saved with another adapter?"
            )
        unused = [entry for entry in unused if entry is not fitting[0]]
        state = {str(q): _number(file, name, v) for q, v in fitting[0].items() if v is not None}
        try:
            check_optimizer_state(optimizer, name, parameter, state)
        except TrainingError as error:
            raise TrainingError(f"{file}: {error}") from error
        for quantity, value in state.items():
            # torch keeps AdamW's step counter on the CPU
            where = "cpu" if quantity == "step" else parameter.device
            optimizer.state[parameter][quantity] = value.to(where)


def _number(file: Path, name: str, value: Any) -> Tensor:
    """A quantity of the optimizer as a tensor of float32."""
    if isinstance(value, int | float) and abs(value) < 2**53:
        return torch.tensor(float(value))
    found = plain(value) if isinstance(value, Tensor) else Unusable(f"is {value!r:.40}")
    if isinstance(found, Unusable):
        raise TrainingError(f"{file}: a quantity of its optimizer state of {name} {found.reason}.")
    return found.float().clone()


def _shape(value: Any) -> torch.Size | None:
    return value.shape if isinstance(value, Tensor) else None


def input_digests(setup: Setup) -> dict[str, str]:
    """Name → digest of everything that decides the result.

    Reads the vectors of all labels and the weights once: less than the first epoch does.
    """
    model = setup.model
    digests = {
        "the training labels": setup.train.digest(),
        "the training vectors": _vectors_digest(setup.train),
        "the validation labels": setup.val.digest(),
        "the validation vectors": _vectors_digest(setup.val),
        # Weights of another dtype cannot be compared; the binding's fingerprint still is.
        f"the weights of the model in {str(model.dtype).removeprefix('torch.')}": weights_digest(
            model
        ),
    }
    source = setup.config.training.resume_from_checkpoint
    if source is not None:
        try:
            digests["the adapter that training starts from"] = sha256(find_adapter_file(source))
        except MissingFileError:  # a run that has a checkpoint no longer needs it
            return digests
    return digests


def check_same_run(
    setup: Setup,
    run: RunFolder,
    checkpoint: TrainingState | None,
    examples: str,
    inputs: dict[str, str],
) -> None:
    """Raise TrainingError or BindingError unless data, length and model are those of the run.

    checkpoint: the newest one, None before the first; examples: digest of the training examples
    now; inputs: `input_digests` now. Runs of earlier versions recorded no inputs; theirs are not
    checked.
    """
    config = setup.config
    if checkpoint is not None:
        if checkpoint.examples != examples:
            raise TrainingError(
                f"{config.data.labels_file}: the training examples are not those that "
                f"{run.path} began with. Put the file back, or start a new run."
            )
        if checkpoint.total_steps != setup.order.total_steps:
            raise TrainingError(
                f"{run.config_file} means {setup.order.total_steps} steps in all; the run began "
                f"with {checkpoint.total_steps}. Undo the change, or start a new run from "
                "training.resume_from_checkpoint."
            )
        if run.adapter("last").exists():
            before = load_adapter(run.adapter("last")).binding
            if before is not None and setup.adapter.binding is not None:
                before.check(setup.adapter.binding)
    began = run.inputs()
    changed = [name for name in inputs if name in began and began[name] != inputs[name]]
    if not changed:
        return
    files = {
        "model": config.model.name,
        "adapter": str(config.training.resume_from_checkpoint),
    }
    file = next((f for word, f in files.items() if word in changed[0]), config.data.labels_file)
    raise TrainingError(
        f"{file}: {' and '.join(changed)} changed since {run.path} began. Put the file back, or "
        "start a new run in another folder."
    )


def _vectors_digest(split: SplitExamples) -> str:
    digest = hashlib.sha256()
    sections, rows = split.examples.section, split.examples.row
    for number, section in enumerate(split.dataset.sections):
        used = rows[sections == number].unique()
        for block in used.split(_BLOCK_ROWS):
            digest.update(section.vectors[block].float().contiguous().numpy().data)
    return digest.hexdigest()
