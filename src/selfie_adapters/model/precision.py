"""Which dtype the frozen weights have, where the user says "auto"."""

from __future__ import annotations

import contextlib
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from selfie_adapters.errors import DataError, MissingFileError, ModelError, StorageError, nearest
from selfie_adapters.files import cache_dir, read_json, write_json

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}

# bfloat16 must win clearly: many CPUs emulate it, some slower than float32.
_CLEAR_GAIN = 1.2


def resolve_dtype(dtype: str | torch.dtype, device_map: Any) -> torch.dtype:
    """A torch dtype from a dtype, its name, or "auto". Raises ModelError for another name."""
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype in DTYPES:
        return DTYPES[dtype]
    if dtype != "auto":
        raise ModelError(f'dtype "{dtype}" is not known. {nearest(dtype, ["auto", *DTYPES])}')
    if str(device_map) != "cpu":
        return torch.bfloat16
    return torch.bfloat16 if bfloat16_pays_on_this_cpu() else torch.float32


def bfloat16_pays_on_this_cpu() -> bool:
    """Measured once per machine and torch version (a tenth of a second), then remembered."""
    record = cache_dir() / "cpu_bfloat16.json"
    machine = f"{platform.machine()} {_cpu_name()} threads={torch.get_num_threads()}"
    key = f"{machine} torch={torch.__version__}"
    known = _remembered(record)
    if key not in known:
        known[key] = round(_product_seconds(torch.float32) / _product_seconds(torch.bfloat16), 2)
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


def _product_seconds(dtype: torch.dtype) -> float:
    """Median time of a matrix product of the size that a small model's layers have."""
    left = torch.randn(256, 512).to(dtype)  # larger ones take seconds where bfloat16 is emulated
    right = torch.randn(512, 1024).to(dtype)
    seconds = []
    for _ in range(4):
        start = time.perf_counter()
        torch.matmul(left, right)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123  (not a real file)
            return next(
                line.split(":")[1].strip() for line in file if line.startswith("model name")
            )
    except (OSError, StopIteration):
        return platform.processor()
