"""What a client may ask for, and how much of it."""

from __future__ import annotations

import io
import json
import math
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from selfie_adapters.errors import DataError, SelfieError
from selfie_adapters.model.user_text import Chat


@dataclass(frozen=True)
class Limits:
    """Bounds of one request, and of all together (`places`)."""

    places: int = 9
    body_bytes: int = 1_000_000
    body_seconds: float = 20.0
    prompt_characters: int = 20_000
    prompt_tokens: int = 1_024
    cells: int = 3_000
    vector_labels: int = 128
    idle_seconds: float = 30.0
    """A client that takes nothing for so long is dropped."""


class RefusedError(SelfieError, ValueError):
    """A request that is refused with an HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status

    def __reduce__(self) -> tuple[type[RefusedError], tuple[int, str]]:
        return type(self), (self.status, str(self))


R = TypeVar("R", bound=BaseModel)


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    adapters: list[int] = Field(default=[0], min_length=1, max_length=2)


class ReadRequest(_Request):
    """Read a prompt. layers, positions: as on the command line; null for all."""

    prompt: str
    layers: str | None = Field(default=None, max_length=1000)
    positions: str | None = Field(default=None, max_length=1000)
    chat: Chat = "template"
    special: bool = False


class LabelRequest(_Request):
    """Label vectors: one list of numbers, or a list of such lists."""

    vectors: list[float | int] | list[list[float | int]] = Field(default=[])
    scales: list[float] = Field(default=[1.0], min_length=1, max_length=8)


def parse_json(kind: type[R], body: bytes) -> R:
    """A request from its JSON body. Raises RefusedError 400 that says what is wrong, and where."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the body"
        raise RefusedError(400, f"{place}: {first['msg']}.") from error


def vectors_of(body: bytes) -> Tensor:
    """Vectors in an uploaded file (.npy, .safetensors, JSON), by its first bytes: [n, d_model].

    One vector may come without its outer axis. Raises DataError.
    """
    if body.startswith(b"\x93NUMPY"):
        tensor = _npy(body)
    elif body[:1].isspace() or body[:1] in (b"[", b"{"):
        return as_vectors(_json(body))
    else:
        tensor = _safetensors(body)
    if not tensor.is_floating_point():
        raise DataError(f"the file holds {tensor.dtype}; floating-point numbers are expected.")
    return _two_axes(tensor.float())


def as_vectors(numbers: Any) -> Tensor:
    """A list of numbers, or a list of such lists of one length, as [n, d_model]. DataError."""
    if isinstance(numbers, dict):
        numbers = numbers.get("vectors", numbers.get("vector"))
    try:
        tensor = torch.tensor(numbers, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise DataError(
            "a list of numbers, or lists of numbers of one length, is expected."
        ) from error
    return _two_axes(tensor.float())


def _two_axes(tensor: Tensor) -> Tensor:
    if tensor.ndim == 1:
        tensor = tensor.unsqueeze(0)
    if tensor.ndim != 2 or not tensor.numel():
        raise DataError(f"vectors of shape {list(tensor.shape)}: [n, d_model] is expected.")
    return tensor


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise DataError("the file begins like JSON and is none.") from error


def _npy(body: bytes) -> Tensor:
    file = io.BytesIO(body)
    try:
        version = np.lib.format.read_magic(file)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, fortran, dtype = read(file)
        # The size is checked here: numpy would first allocate whatever the header claims.
        if dtype.hasobject or math.prod(shape) * dtype.itemsize != len(body) - file.tell():
            raise ValueError("its header does not fit its length")
        array = np.frombuffer(body, dtype, offset=file.tell())
        array = array.reshape(shape, order="F" if fortran else "C")
        if not np.issubdtype(dtype, np.floating):
            raise ValueError(f"it holds {dtype}")
        return torch.from_numpy(array.astype(np.float32))
    except (ValueError, KeyError, TypeError, SyntaxError, RecursionError) as error:
        raise DataError(f"not a plain .npy array of floating-point numbers ({error}).") from error


def _safetensors(body: bytes) -> Tensor:
    try:
        tensors = load(body)
    except (SafetensorError, ValueError) as error:
        raise DataError("the file is neither .npy, .safetensors nor JSON.") from error
    if len(tensors) != 1:
        raise DataError(f"the file holds {len(tensors)} tensors; one is expected.")
    return next(iter(tensors.values()))
