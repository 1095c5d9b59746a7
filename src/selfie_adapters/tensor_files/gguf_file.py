"""`.gguf` files of vectors, such as llama.cpp's control vectors (`direction.N`)."""

from __future__ import annotations

import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from selfie_adapters.errors import DataError
from selfie_adapters.files import read_as
from selfie_adapters.tensor_files.safetensors_file import MOST_TENSORS
from selfie_adapters.tensor_files.tensors import FoundTensors, Unusable, plain

_FLOATS = {"F64", "F32", "F16"}


def gguf_tensors(file: Path) -> FoundTensors:
    """The tensors of a file by name; those that are not plain floats are unusable.

    Raises DataError for a damaged file, and for a model: one with more than MOST_TENSORS tensors.
    """
    reader = read_gguf(file)
    if len(reader.tensors) > MOST_TENSORS:
        raise DataError(
            f"{file}: {len(reader.tensors)} tensors; this looks like a model, not vectors."
        )
    return {one.name: _tensor(one.data, one.tensor_type.name) for one in reader.tensors}


def read_gguf(file: Path) -> Any:
    """The gguf package's reader of `file`. Raises DataError for a damaged file, at once."""
    from gguf import GGUFReader, GGUFValueType  # slow to import, and few files are of this kind

    class Reader(GGUFReader):
        """Ends where the file does: its base reads nothing there, as often as a count claims."""

        def _get(self, offset: Any, dtype: Any, count: Any = 1, *order: Any, **named: Any) -> Any:
            if isinstance(self.data, np.memmap):  # of which each slice costs several times as much
                self.data = self.data.view(np.ndarray)
            if int(offset) + int(count) * np.dtype(dtype).itemsize > len(self.data):
                raise ValueError("the header states more data than the file contains")
            return super()._get(offset, dtype, count, *order, **named)

        def _get_field_parts(self, orig_offs: Any, raw_type: Any) -> Any:
            """Arrays in one pass, of strings without their lengths: a vocabulary is some 150,000
            elements, for each of which the base makes several arrays."""
            head = int(orig_offs)
            if raw_type != GGUFValueType.ARRAY or self.byte_order != "I":
                return super()._get_field_parts(orig_offs, raw_type)
            kind, count = self._get(head, np.uint32), self._get(head + 4, np.uint64)
            of, number, start = GGUFValueType(kind[0]), int(count[0]), head + 12
            if of == GGUFValueType.STRING:
                elements, end = _strings(self.data.data, start, number)
            elif dtype := self.gguf_scalar_to_np.get(of):
                values = self._get(start, dtype, number)
                elements, end = list(values.reshape(-1, 1)), start + values.nbytes
            else:
                return super()._get_field_parts(orig_offs, raw_type)
            types = [GGUFValueType.ARRAY, *([of] if number else [])]
            return end - head, [kind, count, *elements], list(range(2, 2 + number)), types

    # numpy warns of sizes that overflow.
    with read_as(file, "a GGUF file"), warnings.catch_warnings(action="ignore"):
        return Reader(file)


def _strings(data: memoryview, start: int, count: int) -> tuple[list[memoryview], int]:
    """`count` strings, the first one's length (8 bytes) at `start`, and where the last one ends.

    Raises ValueError if the data end first.
    """
    length = struct.Struct("=Q").unpack_from
    found = []
    for _ in range(count):
        if start + 8 > len(data):
            raise ValueError("the header states more data than the file contains")
        end = start + 8 + length(data, start)[0]
        found.append(data[start + 8 : end])
        start = end
    if start > len(data):
        raise ValueError("the header states more data than the file contains")
    return found, start


def _tensor(data: np.ndarray, kind: str) -> torch.Tensor | Unusable:
    """data: the numbers as they are stored, [rows, …], mapped."""
    if kind not in _FLOATS:
        return Unusable(f"is stored as {kind}; convert it to F32 or F16")
    native = data.astype(data.dtype.newbyteorder("="))  # a copy: the mapping is read-only
    return plain(torch.from_numpy(native))
