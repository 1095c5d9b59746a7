"""Vector files: one 2-D tensor, row = index, or single directions; memory-mapped."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from selfie_adapters.dataset.nla import ACTIVATIONS, read_sidecar
from selfie_adapters.errors import DataError
from selfie_adapters.files import atomic_path, existing_file
from selfie_adapters.tensor_files import open_tensors

_LAYER = re.compile(r"(?:layers?|blocks?|l|direction)?[._ ]?(\d{1,4})", re.IGNORECASE)
_ROWS_AT_ONCE = 8192
_NUMBERS = (int, float, np.integer, np.floating)


class Directions(NamedTuple):
    """Rows of a vector file, and what its names state about them."""

    rows: Tensor
    """[rows, d_model]"""
    layers: tuple[int, ...] | None
    """The zero-based block of each row, where each is stored under its layer."""


def open_vectors(path: str | Path) -> Tensor:
    """The vectors in a `.pt`, `.safetensors`, `.npy`, `.npz`, `.gguf` or `.parquet` file:
    [rows, d_model].

    Memory-mapped: only rows that are read are loaded. Raises like `open_directions`.
    """
    return open_directions(path).rows


def open_directions(path: str | Path) -> Directions:
    """The vectors in a file, and their layers where it states them.

    A file holds one 2-D tensor of floats, or one direction [d_model], or several of equal width by
    name, such as {layer: direction} with keys 12, "layer_12", or "direction.12" (a control vector
    of llama.cpp: it is added to that block's output, counted from 0); those become rows in the
    order of their layers, else of the file. Of a table of Natural Language Autoencoders
    (dataset/nla.py) the column activation_vector is taken, and the layer its sidecar states.
    Raises MissingFileError, or DataError if there is nothing of the kind, if the file is damaged,
    or if a `.pt` requests code execution.
    """
    file = existing_file(path)
    tensors = open_tensors(file)
    floats = {name: one for name, one in tensors.items() if one.is_floating_point()}
    flat = [one for one in floats.values() if one.ndim == 2]
    if file.suffix.lower() == ".parquet" and ACTIVATIONS in floats:
        flat = [floats[ACTIVATIONS]]
    if len(flat) == 1:
        return Directions(flat[0], _stated_layers(file, flat[0]))
    single = {name: one for name, one in floats.items() if one.ndim == 1}
    widths = {len(one) for one in single.values()}
    if not flat and len(widths) == 1:
        return _stacked(single)
    found = ", ".join(f"{name} {list(one.shape)}" for name, one in list(tensors.items())[:6])
    rest = f" and {len(tensors) - 6} more" if len(tensors) > 6 else ""
    if tensors and not floats:
        kinds = ", ".join(sorted({str(one.dtype) for one in tensors.values()}))
        raise DataError(f"{file}: {found}{rest} of {kinds}; floating point is expected.")
    raise DataError(
        f"{file}: one 2-D tensor [rows, d_model] is expected, or directions [d_model] of one "
        f"width; found {found or 'no tensor'}{rest}."
    )


def _stated_layers(file: Path, rows: Tensor) -> tuple[int, ...] | None:
    """The layer of every row, where a sidecar states it. Raises DataError for another width."""
    sidecar = read_sidecar(file) if file.suffix.lower() == ".parquet" else None
    if sidecar is None:
        return None
    if sidecar.d_model not in (None, rows.shape[1]):
        raise DataError(
            f"{file}: vectors of width {rows.shape[1]}; {sidecar.file.name} states d_model "
            f"{sidecar.d_model}. One of them belongs to another table."
        )
    return None if sidecar.layer is None else (sidecar.layer,) * len(rows)


def _stacked(directions: dict[str, Tensor]) -> Directions:
    if len(directions) == 1:
        (only,) = directions.values()
        return Directions(only[None], _layers(directions))
    layers = _layers(directions)
    ordered = list(directions.values())
    if layers is not None:
        ordered = [one for _, one in sorted(zip(layers, ordered, strict=True), key=lambda x: x[0])]
        layers = tuple(sorted(layers))
    dtype = ordered[0].dtype
    for one in ordered:
        dtype = torch.promote_types(dtype, one.dtype)
    return Directions(torch.stack([one.to(dtype) for one in ordered]), layers)


def _layers(names: Iterable[str]) -> tuple[int, ...] | None:
    matches = [_LAYER.fullmatch(name) for name in names]
    numbers = tuple(int(match[1]) for match in matches if match)
    return numbers if len(numbers) == len(matches) == len(set(numbers)) else None


def as_vectors(values: Any) -> Tensor:
    """`values` as one floating-point tensor [n, d_model]; one vector may be [d_model].

    values: a tensor, a numpy array, a list of numbers, or a sequence of any of these. Tensors of
    16 and 32 bits keep dtype and memory; all else becomes float32. Raises DataError for other
    shapes, rows of several lengths, and what is not a real number.
    """
    try:
        if isinstance(values, (list, tuple)) and any(
            isinstance(row, (Tensor, np.ndarray)) for row in values
        ):
            tensor = torch.cat([as_vectors(row) for row in values])
        elif isinstance(values, Tensor):
            tensor = values if values.layout == torch.strided else values.to_dense()
            if tensor.dtype == torch.bool or tensor.is_complex() or tensor.is_meta:
                raise TypeError
            if tensor.dtype not in (torch.float32, torch.bfloat16, torch.float16):
                tensor = tensor.float()
        else:
            tensor = _from_numbers(values)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise DataError(
            "a list of numbers, or lists of numbers of one length, is expected; found "
            f"{type(values).__name__}."
        ) from error
    if tensor.ndim == 1:
        tensor = tensor.unsqueeze(0)
    if tensor.ndim != 2:
        raise DataError(f"vectors of shape {list(tensor.shape)}: [n, d_model] is expected.")
    return tensor


def _from_numbers(values: Any) -> Tensor:
    """float32, of any shape. numpy alone would also convert booleans, None and strings."""
    if isinstance(values, (list, tuple)):
        rows = (row if isinstance(row, (list, tuple)) else (row,) for row in values)
        kinds = {type(number) for row in rows for number in row}
        if not all(issubclass(kind, _NUMBERS) and kind is not bool for kind in kinds):
            raise TypeError
        array = np.asarray(values, dtype=np.float64)  # an integer may exceed 64 bits
    else:
        array = np.asarray(values)
        if array.dtype.kind not in "fiu":
            raise TypeError
    with np.errstate(over="ignore"):  # becomes infinity, which callers report with its position
        return torch.from_numpy(np.require(array, np.float32, ["C", "W"]))


def save_vectors(path: str | Path, vectors: Tensor) -> None:
    """Write one 2-D tensor as `.safetensors` (key "vectors") or `.pt`, atomically."""
    with atomic_path(path) as temporary:
        write_rows(temporary, Path(path).suffix, vectors)


def write_rows(temporary: Path, suffix: str, vectors: Tensor) -> None:
    """As `save_vectors`, into a temporary file of a file that ends in `suffix`."""
    contiguous = vectors.detach().cpu().contiguous()
    if suffix.lower() == ".safetensors":
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
        # NaN, infinity and a row of zeros all show in the largest magnitude.
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


DIGEST_KEY = "vectors_digest"
"""Key of a section's metadata. Files without it are read unchecked."""

_WHOLE = 2**28  # bytes up to which all rows are hashed: under half a second
_SAMPLE = 2**26  # bytes that are hashed of a larger tensor: vectors of 10 GB load at once
_BLOCK = 2**24


def vectors_digest(vectors: Tensor) -> str:
    """SHA-256 of dtype, shape and rows of `vectors` [rows, d_model].

    Of a tensor above 256 MiB, 64 MiB of evenly spaced rows stand for all of them: such a file is
    made from a decoder, and another decoder differs everywhere.
    """
    rows, width = vectors.shape
    row_bytes = max(1, width * vectors.element_size())
    digest = hashlib.sha256(f"{vectors.dtype} {rows} {width}\n".encode())
    chosen = rows if rows * row_bytes <= _WHOLE else max(1, _SAMPLE // row_bytes)
    positions = torch.arange(chosen) * rows // max(1, chosen)
    for part in positions.split(max(1, _BLOCK // row_bytes)):
        # Slices of a mapped file are not copied; gathered rows are.
        block = vectors[int(part[0]) : int(part[-1]) + 1] if chosen == rows else vectors[part]
        digest.update(block.contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()
