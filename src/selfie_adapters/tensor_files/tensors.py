"""Which tensors can be used, and what is wrong with the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from selfie_adapters.errors import DataError
from selfie_adapters.files import is_lfs_pointer


@dataclass(frozen=True)
class Unusable:
    """Something in a file that is no tensor of plain numbers; `reason` follows its name."""

    reason: str


FoundTensors = Mapping[str, Tensor | Unusable]


def unpack_limit(file: Path) -> int:
    """Bytes that the compressed parts of `file` may unpack to."""
    return max(48 * 2**20, 3 * file.stat().st_size)


def refuse_pointer(file: Path) -> None:
    """Raise DataError for a Git LFS pointer."""
    if is_lfs_pointer(file):
        raise DataError(f"{file}: a Git LFS pointer, not the file itself. Fetch it: git lfs pull.")


def plain(tensor: Tensor) -> Tensor | Unusable:
    """The tensor without gradient, dense and with all its numbers in memory; or why it is none.

    A tensor that repeats its numbers (stride 0, overlapping rows) is refused: a file of a kilobyte
    can claim terabytes that way.
    """
    if tensor.layout != torch.strided or tensor.is_nested:
        return Unusable("is sparse or nested; save it dense: torch.save(tensor.to_dense(), path)")
    if tensor.is_quantized:
        return Unusable("is quantized; save it as numbers: torch.save(tensor.dequantize(), path)")
    if tensor.device.type != "cpu":
        return Unusable(f'is on the device "{tensor.device.type}" and has no numbers in the file')
    if any(size < 0 for size in tensor.shape):
        return Unusable(f"has the shape {list(tensor.shape)}")
    if tensor.numel() == 0:
        return Unusable(f"has the shape {list(tensor.shape)}: no numbers at all")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        return Unusable(
            f"claims {tensor.numel():,} numbers (shape {list(tensor.shape)}) and stores fewer; "
            "save it in full: torch.save(tensor.contiguous().clone(), path)"
        )
    tensor = tensor.detach()
    if tensor.is_floating_point() and tensor.element_size() == 1:
        return _widened(tensor)
    return tensor


def _widened(tensor: Tensor) -> Tensor | Unusable:
    """8-bit floats as float16, which holds nearly all of them exactly; rows of it can be read."""
    try:
        # The scale format float8_e8m0fnu reaches 2**127.
        wide = torch.float32 if "e8m0" in str(tensor.dtype) else torch.float16
        return tensor.to(wide)
    except (RuntimeError, TypeError, NotImplementedError):  # packed formats of 4 bits
        return Unusable(f"holds {tensor.dtype}, packed numbers; save it as bfloat16")
