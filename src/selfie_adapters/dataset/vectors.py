"""Vector files: one 2-D tensor, row = index, memory-mapped; nothing in them is ever executed."""

from __future__ import annotations

import pickle
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from selfie_adapters.errors import DataError
from selfie_adapters.files import atomic_path, existing_file

_ROWS_AT_ONCE = 8192


def open_vectors(path: str | Path) -> Tensor:
    """The 2-D float tensor in a `.pt`, `.safetensors` or `.npy` file: [rows, d_model].

    Memory-mapped: only rows that are read are loaded. Raises MissingFileError, or DataError if
    there is not exactly one 2-D tensor, or if a `.pt` asks for code execution.
    """
    file = existing_file(path)
    tensors = open_tensors(file)
    flat = {name: t for name, t in tensors.items() if t.ndim == 2}
    if len(flat) != 1:
        found = ", ".join(f"{name} {list(t.shape)}" for name, t in tensors.items()) or "no tensor"
        raise DataError(f"{file}: one 2-D tensor [rows, d_model] is expected, found {found}.")
    (tensor,) = flat.values()
    if not tensor.is_floating_point():
        raise DataError(f"{file}: the tensor holds {tensor.dtype}; floating point is expected.")
    return tensor


def open_tensors(path: str | Path) -> dict[str, Tensor]:
    """Every tensor in a `.pt`, `.safetensors`, `.npy` or `.npz` file by its name, memory-mapped.

    Raises MissingFileError, or DataError if a `.pt` asks for code execution or the file is damaged.
    """
    file = existing_file(path)
    readers = {
        ".pt": _from_pt,
        ".pth": _from_pt,
        ".safetensors": _from_safetensors,
        ".npy": _from_npy,
        ".npz": _from_npz,
    }
    reader = readers.get(file.suffix)
    if reader is None:
        raise DataError(f"{file}: vectors are read from .pt, .safetensors, .npy and .npz files.")
    return reader(file)


def save_vectors(path: str | Path, vectors: Tensor) -> None:
    """Write one 2-D tensor as `.safetensors` (key "vectors") or `.pt`, whole or not at all."""
    contiguous = vectors.detach().cpu().contiguous()
    with atomic_path(path) as temporary:
        if Path(path).suffix == ".safetensors":
            save_file({"vectors": contiguous}, temporary)
        else:
            # To an open file: given a path, torch writes the temporary name into the archive.
            with temporary.open("wb") as file:
                torch.save(contiguous.clone(), file)


def bad_rows(vectors: Tensor, rows: Tensor) -> list[tuple[int, str]]:
    """(row, reason) for each of `rows` that holds NaN or infinity, or zeros alone; in chunks."""
    found: list[tuple[int, str]] = []
    for chunk in rows.split(_ROWS_AT_ONCE):
        values = vectors[chunk].float()
        # A row's largest magnitude tells all: NaN, infinity or zero.
        largest = values.abs().amax(dim=1)
        for position in (~(largest > 0) | ~torch.isfinite(largest)).nonzero().flatten().tolist():
            what = "all zeros" if largest[position] == 0 else "NaN or infinity"
            found.append((int(chunk[position]), what))
    return found


def row_norms(vectors: Tensor, rows: Tensor) -> Tensor:
    """L2 norms of `rows`: [rows], float32; in chunks."""
    if not rows.numel():
        return torch.empty(0)
    return torch.cat([vectors[part].float().norm(dim=1) for part in rows.split(_ROWS_AT_ONCE)])


def _from_pt(file: Path) -> dict[str, Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's remarks on pickle protocols help nobody here
        return dict(_tensors_in(_load_pt(file)))


def _load_pt(file: Path) -> Any:
    try:
        try:
            return torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError as error:
            if "mmap" not in str(error):
                raise
            # The format before torch 1.6 is no zip archive and cannot be mapped.
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise DataError(
            f"{file}: not a plain tensor file: reading it would execute code, or it is damaged. "
            "Save the tensor itself: torch.save(tensor, path)."
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError) as error:
        raise DataError(
            f"{file}: cannot be read as a torch file ({_first_line(error)})."
        ) from error


def _tensors_in(content: Any, name: str = "tensor"):
    if isinstance(content, Tensor):
        yield name, content
    elif isinstance(content, dict):
        for key, value in content.items():
            yield from _tensors_in(value, str(key))
    elif isinstance(content, (list, tuple)):
        for position, value in enumerate(content):
            yield from _tensors_in(value, f"{name}[{position}]")


def _from_safetensors(file: Path) -> dict[str, Tensor]:
    try:
        with safe_open(file, framework="pt") as opened:
            # Shapes first, so that a wrong file of many tensors is not read to be refused.
            names = list(opened.keys())
            if len(names) > 64:
                raise DataError(
                    f"{file}: {len(names)} tensors; this looks like a model, not vectors."
                )
            return {name: opened.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise DataError(f"{file}: not a safetensors file ({_first_line(error)}).") from error


def _from_npy(file: Path) -> dict[str, Tensor]:
    try:
        array = np.load(file, mmap_mode="c", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise DataError(f"{file}: not a plain .npy array ({_first_line(error)}).") from error
    if not np.issubdtype(array.dtype, np.floating):
        raise DataError(f"{file}: the array holds {array.dtype}; floating point is expected.")
    return {"array": torch.from_numpy(array)}


def _from_npz(file: Path) -> dict[str, Tensor]:
    """numpy maps single arrays only; the members of an archive that is not compressed lie in it
    as they are, so each can be mapped at its place."""
    try:
        with zipfile.ZipFile(file) as archive, file.open("rb") as opened:
            members = archive.infolist()
            if any(member.compress_type != zipfile.ZIP_STORED for member in members):
                with np.load(file, allow_pickle=False) as arrays:
                    return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
            return {
                member.filename.removesuffix(".npy"): torch.from_numpy(
                    _mapped_array(file, opened, member)
                )
                for member in members
            }
    except (ValueError, OSError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise DataError(f"{file}: not a plain .npz archive ({_first_line(error)}).") from error


def _mapped_array(file: Path, opened: BinaryIO, member: zipfile.ZipInfo) -> np.ndarray:
    opened.seek(payload_offset(opened, member))
    version = np.lib.format.read_magic(opened)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    shape, fortran, dtype = readers[version](opened)
    if dtype.hasobject:
        raise ValueError(f"{member.filename} holds pickled objects")
    if 0 in shape or not shape:  # nothing to map, or a single number
        size = dtype.itemsize * int(np.prod(shape))
        return np.frombuffer(bytearray(opened.read(size)), dtype).reshape(shape)
    order = "F" if fortran else "C"
    return np.memmap(file, dtype, mode="c", offset=opened.tell(), shape=shape, order=order)


def payload_offset(opened: BinaryIO, member: zipfile.ZipInfo) -> int:
    """Where the bytes of an archive's member begin: after its own header, name and padding."""
    opened.seek(member.header_offset + 26)
    name, extra = struct.unpack("<HH", opened.read(4))
    return member.header_offset + 30 + name + extra


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
