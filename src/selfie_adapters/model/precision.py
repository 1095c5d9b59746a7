"""Which dtype the frozen weights take, where the user requests "auto"."""

from __future__ import annotations

import contextlib
import platform
import statistics
import time
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import linear, silu

from selfie_adapters.errors import DataError, MissingFileError, ModelError, StorageError, nearest
from selfie_adapters.files import cache_dir, read_json, write_json

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}

# bfloat16 must win clearly: many CPUs emulate it, some slower than float32.
_CLEAR_GAIN = 1.2


Workload = Literal["training", "generation"]
"""What a model is mostly used for: passes with gradients, or many passes of one token per row."""


def resolve_dtype(
    dtype: str | torch.dtype, device_map: Any, job: Workload = "generation"
) -> torch.dtype:
    """A torch dtype from a dtype, its name, or "auto": the faster one for `job` on this machine.

    Raises ModelError for another name.
    """
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype in DTYPES:
        return DTYPES[dtype]
    if dtype != "auto":
        raise ModelError(f'dtype "{dtype}" is not known. {nearest(dtype, ["auto", *DTYPES])}')
    if str(device_map) != "cpu":
        return torch.bfloat16
    return torch.bfloat16 if bfloat16_pays_on_this_cpu(job) else torch.float32


def bfloat16_pays_on_this_cpu(job: Workload) -> bool:
    """Measured once per machine, torch version and job (about a second), then remembered."""
    record = cache_dir() / "cpu_bfloat16.json"
    machine = f"{platform.machine()} {_cpu_name()} threads={torch.get_num_threads()}"
    key = f"{job} {machine} torch={torch.__version__}"
    known = _remembered(record)
    if key not in known:
        known[key] = round(_seconds(job, torch.float32) / _seconds(job, torch.bfloat16), 2)
        with contextlib.suppress(StorageError):  # a read-only home only costs the measurement again
            write_json(record, known)
    return known[key] >= _CLEAR_GAIN


def _remembered(record: Path) -> dict[str, float]:
    """Gains measured before; a file that cannot be used counts as none."""
    try:
        known = read_json(record)
        return {str(key): float(gain) for key, gain in known.items()}
    except (MissingFileError, DataError, ValueError, TypeError, AttributeError, OverflowError):
        return {}


def _seconds(job: Workload, dtype: torch.dtype) -> float:
    """Median time of what `job` does in one block of a small model, and in the head."""
    run = {"training": _training_pass, "generation": _generation_step}[job]
    width, inner, vocabulary = 512, 1024, 8192  # larger ones take long where bfloat16 is emulated
    up, down = torch.randn(inner, width).to(dtype), torch.randn(width, inner).to(dtype)
    head = torch.randn(vocabulary, width).to(dtype)
    seconds = []
    for _ in range(4):
        start = time.perf_counter()
        run(up, down, head)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def _training_pass(up: Tensor, down: Tensor, head: Tensor) -> None:
    """Forward and backward through an MLP, for the tokens of a micro-batch; a tenth of them are
    label tokens, which need the head."""
    states = torch.randn(256, down.shape[0], dtype=up.dtype, requires_grad=True)
    hidden = states + linear(silu(linear(states, up)), down)
    loss = linear(hidden[::10], head).float().logsumexp(dim=-1).sum()
    loss.backward()


@torch.inference_mode()
def _generation_step(up: Tensor, down: Tensor, head: Tensor) -> None:
    """One token for each of many rows: attention over a short cache, MLP, head, log-softmax."""
    states = torch.randn(128, down.shape[0], dtype=up.dtype)
    cache = torch.randn(128, 2, 40, 64, dtype=up.dtype)  # [rows, key heads, tokens, width]
    weights = states.view(128, 2, 4, 64) @ cache.transpose(2, 3)
    mixed = (weights.softmax(dim=-1, dtype=torch.float32).to(up.dtype) @ cache).view(states.shape)
    hidden = mixed + linear(silu(linear(mixed, up)), down)
    linear(hidden, head).float().log_softmax(dim=-1)


def _cpu_name() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as file:
            return next(
                line.split(":")[1].strip() for line in file if line.startswith("model name")
            )
    except (OSError, StopIteration):
        return platform.processor()
