"""`.npy` and `.npz` files: headers checked against the file, numbers mapped, no pickles."""

from __future__ import annotations

import math
import struct
import warnings
import zipfile
from pathlib import Path
from typing import IO, BinaryIO

import numpy as np
import torch
from torch import Tensor

from selfie_adapters.errors import DataError
from selfie_adapters.files import read_as
from selfie_adapters.tensor_files.tensors import (
    FoundTensors,
    Unusable,
    plain,
    unpack_limit,
)

_HEADER_READERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def npy_tensors(file: Path) -> FoundTensors:
    """The array of a `.npy` file, mapped. Raises DataError if the file is damaged."""
    with read_as(file, "a plain .npy array"), file.open("rb") as opened:
        return {"array": _array(file, opened, 0, file.stat().st_size)}


def npz_tensors(file: Path) -> FoundTensors:
    """The arrays of a `.npz` archive by name: mapped where stored as they are, else unpacked.

    numpy maps single arrays only, but the members of an archive that is not compressed are stored
    as they are, so each can be mapped at its place. Raises DataError if the archive is damaged.
    """
    with (
        read_as(file, "a plain .npz archive"),
        zipfile.ZipFile(file) as archive,
        file.open("rb") as opened,
    ):
        members = archive.infolist()
        packed = [one for one in members if one.compress_type != zipfile.ZIP_STORED]
        if sum(one.file_size for one in packed) > unpack_limit(file):
            raise DataError(f"{file}: its arrays unpack to far more than the file's size.")
        found = {}
        for member in members:
            name = member.filename.removesuffix(".npy")
            if member in packed:
                with archive.open(member) as stream:
                    found[name] = _unpacked(stream, member.file_size)
            else:
                start = payload_offset(opened, member)
                found[name] = _array(file, opened, start, start + member.file_size)
        return found


def payload_offset(opened: BinaryIO, member: zipfile.ZipInfo) -> int:
    """Where the bytes of an archive's member begin: after its own header, name and padding."""
    opened.seek(member.header_offset + 26)
    name, extra = struct.unpack("<HH", opened.read(4))
    return member.header_offset + 30 + name + extra


def _array(file: Path, opened: BinaryIO, start: int, end: int) -> Tensor | Unusable:
    """The array stored from byte `start` to `end` of `file`, mapped."""
    opened.seek(start)
    shape, fortran, dtype = _header(opened)
    if what := _unusable(shape, dtype):
        return what
    claimed = dtype.itemsize * math.prod(shape)
    if opened.tell() + claimed > min(end, file.stat().st_size):
        raise DataError(
            f"{file}: cut off: the header claims {claimed:,} bytes of numbers, there are "
            f"{max(0, end - opened.tell()):,}. Copy or download it again."
        )
    order = "F" if fortran else "C"
    array = np.memmap(file, dtype, mode="c", offset=opened.tell(), shape=shape or (1,), order=order)
    return _tensor(array.reshape(shape))


def _unpacked(stream: IO[bytes], size: int) -> Tensor | Unusable:
    """The array in a compressed member of `size` bytes."""
    shape, fortran, dtype = _header(stream)
    if what := _unusable(shape, dtype):
        return what
    claimed = dtype.itemsize * math.prod(shape)
    if claimed > size:
        raise ValueError(f"the header claims {claimed:,} bytes of numbers, there are {size:,}")
    content = np.empty(claimed, np.uint8)  # filled in place: never in memory twice
    at = 0
    while at < claimed:
        chunk = stream.read(min(2**20, claimed - at))
        if not chunk:
            raise ValueError("the compressed data ends early")
        content[at : at + len(chunk)] = np.frombuffer(chunk, np.uint8)
        at += len(chunk)
    return _tensor(content.view(dtype).reshape(shape, order="F" if fortran else "C"))


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about headers that Python 2 wrote
        version = np.lib.format.read_magic(stream)
        if version not in _HEADER_READERS:
            raise ValueError(f"format version {version}; 1.0 and 2.0 hold plain arrays")
        shape, fortran, dtype = _HEADER_READERS[version](stream)
    if any(size < 0 for size in shape):
        raise ValueError(f"the shape is {shape}")
    return tuple(map(int, shape)), fortran, dtype


def _unusable(shape: tuple[int, ...], dtype: np.dtype) -> Unusable | None:
    if dtype.hasobject:
        return Unusable("holds pickled objects, which are never loaded; save an array of floats")
    if dtype.kind not in "fiub":
        return Unusable(f"holds {dtype}; floating point is expected")
    if 0 in shape:
        return Unusable(f"has the shape {list(shape)}: no numbers at all")
    return None


def _tensor(array: np.ndarray) -> Tensor | Unusable:
    """As a tensor. Foreign byte orders and long doubles are converted, which copies them."""
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    elif not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    try:
        return plain(torch.from_numpy(array))
    except TypeError:
        return Unusable(f"holds {array.dtype}; floating point is expected")
