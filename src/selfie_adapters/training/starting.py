"""Start from an adapter file (`training.resume_from_checkpoint`), the published `.pt` included.

Its numbers become the start and its step the first step: the learning rate and the order of
examples are functions of the step. A `.pt` that also holds the optimizer's state is gone on from
with it; the published adapter files hold none, and the optimizer's averages start from zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from selfie_adapters.adapters import Adapter, find_adapter_file, load_adapter
from selfie_adapters.adapters.containers import read_container
from selfie_adapters.errors import ConfigError, TrainingError
from selfie_adapters.tensor_files.tensors import Unusable, plain
from selfie_adapters.training.state import check_optimizer_state

# Names under which trainers save torch's own state dictionaries.
_OPTIMIZER = ("optimizer_state_dict", "optimizer_state", "optimizer")
_SCHEDULE = ("scheduler_state_dict", "scheduler_state", "scheduler")


def start_from_file(
    path: str | Path, adapter: Adapter, optimizer: torch.optim.Optimizer
) -> tuple[int, float | None, str]:
    """Give `adapter` (and `optimizer`, where the file can) the state of an adapter file.

    Returns the optimizer steps done, the best validation loss, and what to tell the user. Raises
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
            f"and rank {saved.low_rank_rank}; the configuration asks for {adapter.kind}, width "
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
        told = "it holds no optimizer state, so the optimizer's averages start from zero"
    else:
        _restore_optimizer(state, adapter, optimizer, file)
        told = "with its optimizer state"
    return step, saved.record.best_val_loss, f"continues from {file}, step {step} ({told})"


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
