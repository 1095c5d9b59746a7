"""Tensors from files that others wrote, memory-mapped; nothing in a file is ever executed."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from selfie_adapters.errors import DataError
from selfie_adapters.files import existing_file
from selfie_adapters.tensor_files.gguf_file import gguf_tensors
from selfie_adapters.tensor_files.numpy_file import npy_tensors, npz_tensors
from selfie_adapters.tensor_files.parquet_file import parquet_tensors
from selfie_adapters.tensor_files.safetensors_file import safetensors_tensors
from selfie_adapters.tensor_files.tensors import Unusable, refuse_pointer
from selfie_adapters.tensor_files.torch_file import load_torch_file, torch_tensors

__all__ = ["load_torch_file", "open_tensors"]

_READERS = {
    ".pt": torch_tensors,
    ".pth": torch_tensors,
    ".safetensors": safetensors_tensors,
    ".npy": npy_tensors,
    ".npz": npz_tensors,
    ".gguf": gguf_tensors,
    ".parquet": parquet_tensors,
}


def open_tensors(path: str | Path) -> dict[str, Tensor]:
    """Every dense tensor in a file of one of the kinds in `_READERS`, by its name.

    Memory-mapped where the file stores the numbers as they are; compressed archives, Parquet
    columns and foreign byte orders are read, within four times the file. Arrays of text and tensors
    without plain numbers (sparse, quantized, …) are skipped where there are others.

    Raises MissingFileError, or DataError if a `.pt` requests code execution, the file is damaged,
    or nothing in it can be used.
    """
    file = existing_file(path)
    reader = _READERS.get(file.suffix.lower())
    if reader is None:
        raise DataError(
            f"{file}: vectors are read from files that end in one of {', '.join(_READERS)}."
        )
    refuse_pointer(file)
    found = reader(file)
    usable = {name: one for name, one in found.items() if isinstance(one, Tensor)}
    for name, one in found.items():
        if isinstance(one, Unusable) and not usable:
            raise DataError(f"{file}: {name} {one.reason}.")
    return usable
