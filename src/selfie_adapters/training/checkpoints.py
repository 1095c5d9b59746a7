"""Checkpoints: all that training needs to resume as if it had never stopped.

One safetensors file each, `checkpoints/step_00000100.safetensors`: the adapter's and the
optimizer's tensors, and the rest as JSON under the header key `state_json`. One file, because one
rename is atomic and two are not. The learning rate, the order of examples and the mixture are
functions of the step and the configuration, so the step number is their whole state.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec
import torch
from safetensors import safe_open
from torch import Tensor

from selfie_adapters.adapters import Adapter
from selfie_adapters.adapters.containers import safetensors_bytes
from selfie_adapters.errors import DataError, TrainingError
from selfie_adapters.files import atomic_path
from selfie_adapters.files.json_text import parse_json
from selfie_adapters.files.number_types import NaturalNumber

_NAME = re.compile(r"step_(\d+)\.safetensors")
_HEADER = "state_json"
_QUANTITIES: dict[type[torch.optim.Optimizer], set[str]] = {
    torch.optim.AdamW: {"step", "exp_avg", "exp_avg_sq"},
    torch.optim.SGD: {"momentum_buffer"},
}
"""What an optimizer of `make_optimizer` keeps of each parameter."""


@dataclass(frozen=True)
class TrainingState:
    """Progress of a training run. All fields are plain JSON values."""

    step: NaturalNumber  # optimizer steps done
    total_steps: NaturalNumber  # of the whole run, which the learning rate depends on
    best: float | None  # lowest validation loss so far
    validated: bool  # the validation that is due at this step is done
    metrics_bytes: NaturalNumber  # of metrics.jsonl; what follows belongs to steps to be redone
    examples: str  # digest of the training examples


def checkpoint_tensors(adapter: Adapter, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """`adapter/{parameter}` and `optimizer/{parameter}/{quantity}`, on the CPU."""
    tensors = {}
    for name, parameter in adapter.named_parameters():
        tensors[f"adapter/{name}"] = parameter.detach()
        for quantity, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):  # before its first step SGD holds a None
                tensors[f"optimizer/{name}/{quantity}"] = value
    return {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}


def restore_tensors(
    adapter: Adapter, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]
) -> None:
    """Put the tensors of `checkpoint_tensors` back, bit for bit.

    Raises TrainingError, and changes nothing, if they are of another adapter or optimizer.
    """
    parameters = dict(adapter.named_parameters())
    stored = {name.removeprefix("adapter/") for name in tensors if name.startswith("adapter/")}
    if stored != parameters.keys():
        raise TrainingError(
            f"the checkpoint holds {', '.join(sorted(stored))}; this adapter ({adapter.kind}) has "
            f"{', '.join(sorted(parameters))}. Was config.yaml changed?"
        )
    restored = []
    for name, parameter in parameters.items():
        saved = tensors[f"adapter/{name}"]
        if saved.shape != parameter.shape:
            raise TrainingError(
                f"{name} has shape {list(saved.shape)} in the checkpoint and "
                f"{list(parameter.shape)} in this adapter. Was config.yaml changed?"
            )
        _check_numbers(name, saved)
        state = _optimizer_state(optimizer, name, parameter, tensors)
        restored.append((parameter, saved, state))
    for parameter, saved, state in restored:  # nothing changes unless everything fits
        with torch.no_grad():
            parameter.copy_(saved)
        for quantity, value in state.items():
            # torch keeps AdamW's step counter on the CPU
            optimizer.state[parameter][quantity] = (
                value if quantity == "step" else value.to(parameter.device)
            )


def _optimizer_state(
    optimizer: torch.optim.Optimizer, name: str, parameter: Tensor, tensors: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    prefix = f"optimizer/{name}/"
    state = {
        key.removeprefix(prefix): value.clone()
        for key, value in tensors.items()
        if key.startswith(prefix)
    }
    check_optimizer_state(optimizer, name, parameter, state)
    return state


def check_optimizer_state(
    optimizer: torch.optim.Optimizer, name: str, parameter: Tensor, state: Mapping[str, Tensor]
) -> None:
    """Raise TrainingError unless `state` holds what `optimizer` keeps of the parameter `name`: all
    of its quantities, or (before the first step) none."""
    expected = _QUANTITIES[type(optimizer)]
    if state and state.keys() != expected:
        raise TrainingError(
            f"the checkpoint holds {', '.join(sorted(state))} of {name}; this optimizer "
            f"({type(optimizer).__name__}) has {', '.join(sorted(expected))}. "
            "Is training.optimizer_type the one it was saved with?"
        )
    for quantity, value in state.items():
        shape = [] if quantity == "step" else list(parameter.shape)
        if list(value.shape) != shape:
            raise TrainingError(
                f"{quantity} of {name} has shape {list(value.shape)} in the checkpoint; {shape} "
                "is expected. Was config.yaml changed?"
            )
        _check_numbers(f"{quantity} of {name}", value)
        if quantity == "step" and not 0 <= float(value) < 2**53:
            raise TrainingError(
                f"step of {name} is {float(value):g}; a count of optimizer steps is expected."
            )


def _check_numbers(name: str, tensor: Tensor) -> None:
    if tensor.dtype != torch.float32 or not bool(tensor.isfinite().all()):
        raise TrainingError(
            f"{name} holds {tensor.dtype}, NaN or infinity; finite numbers of float32 are expected."
        )


class Checkpoints:
    """The checkpoints of one run: written whole, pruned, found again."""

    def __init__(self, folder: Path, keep_last: int = 2) -> None:
        self.folder = folder
        self._keep_last = keep_last

    def write(self, progress: TrainingState, tensors: dict[str, Tensor]) -> Path:
        """Write one and remove all but the newest few. Raises OSError if it cannot be written."""
        path = self.folder / f"step_{progress.step:08d}.safetensors"
        content = safetensors_bytes(tensors, {_HEADER: json.dumps(asdict(progress))})
        with atomic_path(path) as temporary:
            temporary.write_bytes(content)
        for old in self.newest_first()[self._keep_last :]:
            old.unlink(missing_ok=True)
        return path

    def newest_first(self) -> list[Path]:
        """Paths of the checkpoints there are, by step, falling."""
        if not self.folder.is_dir():
            return []
        found = [path for path in self.folder.iterdir() if _NAME.fullmatch(path.name)]
        return sorted(found, key=lambda path: int(path.stem.removeprefix("step_")), reverse=True)

    def read_newest(self) -> tuple[TrainingState, dict[str, Tensor]] | None:
        """The newest checkpoint; None if there is none. Raises like `read_checkpoint`."""
        paths = self.newest_first()
        return read_checkpoint(paths[0]) if paths else None

    def restore(
        self, adapter: Adapter, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]
    ) -> None:
        """`restore_tensors` of the newest checkpoint, whose file is named where they do not fit."""
        try:
            restore_tensors(adapter, optimizer, tensors)
        except TrainingError as error:
            raise TrainingError(f"{self.newest_first()[0]}: {error}") from error


def read_checkpoint(path: Path) -> tuple[TrainingState, dict[str, Tensor]]:
    """TrainingState and tensors of a checkpoint file. Raises TrainingError if it is damaged."""
    try:
        with safe_open(str(path), framework="pt") as file:
            header = file.metadata() or {}
            if _HEADER not in header:
                raise DataError(f"its header has no {_HEADER}")
            progress = msgspec.convert(parse_json(header[_HEADER], _HEADER), TrainingState)
            if progress.best is not None and not math.isfinite(progress.best):
                raise DataError(f"best is {progress.best}")
            # cloned, because safetensors hands out views of the mapped file
            names = file.keys()
            tensors = {name: file.get_tensor(name).clone() for name in names}
    # safetensors has an error of its own; a dtype or shape that torch does not know has any.
    except Exception as error:
        raise TrainingError(
            f"{path}: not a complete checkpoint ({error}). Remove it, and the run resumes from the "
            "one before."
        ) from error
    return progress, tensors
