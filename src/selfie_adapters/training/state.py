"""Checkpoints: all that training needs to go on as if it had never stopped.

One safetensors file each, `checkpoints/step_00000100.safetensors`: the adapter's and the
optimizer's tensors, and the rest as JSON under the header key `state_json`. One file, because one
rename is atomic and two are not. The learning rate, the order of examples and the mixture are
functions of the step and the configuration, so the step number is their whole state.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from selfie_adapters.adapters import Adapter
from selfie_adapters.adapters.containers import safetensors_bytes
from selfie_adapters.errors import TrainingError
from selfie_adapters.files import atomic_path

_NAME = re.compile(r"step_(\d+)\.safetensors")
_HEADER = "state_json"


@dataclass(frozen=True)
class Progress:
    """Where training stands. All fields are plain JSON values."""

    step: int  # optimizer steps done
    total_steps: int  # of the whole run, which the learning rate depends on
    best: float | None  # lowest validation loss so far
    validated: bool  # the validation that is due at this step is done
    metrics_bytes: int  # length of metrics.jsonl; what comes after belongs to steps to be redone
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

    Raises TrainingError if they are of another adapter.
    """
    parameters = dict(adapter.named_parameters())
    stored = {name.removeprefix("adapter/") for name in tensors if name.startswith("adapter/")}
    if stored != parameters.keys():
        raise TrainingError(
            f"the checkpoint holds {', '.join(sorted(stored))}; this adapter ({adapter.kind}) has "
            f"{', '.join(sorted(parameters))}. Was config.yaml changed?"
        )
    for name, parameter in parameters.items():
        saved = tensors[f"adapter/{name}"]
        if saved.shape != parameter.shape:
            raise TrainingError(
                f"{name} has shape {list(saved.shape)} in the checkpoint and "
                f"{list(parameter.shape)} in this adapter. Was config.yaml changed?"
            )
        with torch.no_grad():
            parameter.copy_(saved)
        prefix = f"optimizer/{name}/"
        state = {
            key.removeprefix(prefix): value.clone()
            for key, value in tensors.items()
            if key.startswith(prefix)
        }
        for quantity, value in state.items():
            # torch keeps AdamW's step counter on the CPU
            optimizer.state[parameter][quantity] = (
                value if quantity == "step" else value.to(parameter.device)
            )


class Checkpoints:
    """The checkpoints of one run: written whole, pruned, found again."""

    def __init__(self, folder: Path, keep_last: int = 2) -> None:
        self.folder = folder
        self._keep_last = keep_last

    def write(self, progress: Progress, tensors: dict[str, Tensor]) -> Path:
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

    def read_newest(self) -> tuple[Progress, dict[str, Tensor]] | None:
        """The newest checkpoint; None if there is none. Raises like `read_checkpoint`."""
        paths = self.newest_first()
        return read_checkpoint(paths[0]) if paths else None


def read_checkpoint(path: Path) -> tuple[Progress, dict[str, Tensor]]:
    """Progress and tensors of a checkpoint file. Raises TrainingError if it is damaged."""
    try:
        with safe_open(str(path), framework="pt") as file:
            progress = Progress(**json.loads((file.metadata() or {})[_HEADER]))
            # cloned, because safetensors hands out views of the mapped file
            return progress, {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise TrainingError(
            f"{path}: not a whole checkpoint ({error}). Remove it, and the run goes on from the "
            "one before."
        ) from error
