"""What a client may ask for, and how much of it."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from selfie_adapters.config.problems import first_problem
from selfie_adapters.config.types import Chat
from selfie_adapters.config.yaml_reading import shortened
from selfie_adapters.dataset.vectors import as_vectors
from selfie_adapters.errors import DataError, SelfieError, nearest
from selfie_adapters.files.json_text import parse_json
from selfie_adapters.tensor_files import open_tensors


@dataclass(frozen=True)
class Limits:
    """Bounds of one request, and of all together (`slots`)."""

    slots: int = 9
    body_bytes: int = 1_000_000
    body_seconds: float = 20.0
    prompt_characters: int = 20_000
    prompt_tokens: int = 1_024
    cells: int = 3_000
    vector_labels: int = 128
    idle_seconds: float = 30.0
    """A client that takes nothing for so long is dropped."""
    head_seconds: float = 10.0
    """A connection without the complete head of a request is dropped after this time."""
    idle_connections: int = 512
    """Of more connections without a request, the oldest is dropped."""


class RefusedError(SelfieError, ValueError):
    """A request that is refused with an HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status

    def __reduce__(self) -> tuple[type[RefusedError], tuple[int, str]]:
        return type(self), (self.status, str(self))


R = TypeVar("R", bound=BaseModel)


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    adapters: list[int] = Field(default=[0], min_length=1, max_length=2)


class ReadRequest(_Request):
    """Read a prompt. layers, positions: as on the command line; null for all. chat null: that of
    the vectors that the adapter was trained on. lens: the logit lens's word for each state too."""

    prompt: str
    layers: str | None = Field(default=None, max_length=1000)
    positions: str | None = Field(default=None, max_length=1000)
    chat: Chat | None = None
    special: bool = False
    lens: bool = False


class LabelRequest(_Request):
    """Label vectors: one list of numbers, or a list of such lists."""

    vectors: list[Any] = Field(default=[])
    """Checked by `vectors_in`: one wrong number is one error, not one for each of the others."""
    scales: list[float] = Field(default=[1.0], min_length=1, max_length=8)


def parse_request(kind: type[R], body: bytes) -> R:
    """A request from its JSON body. Raises RefusedError 400 naming the field and the problem."""
    try:
        value = parse_json(body, "the body")
    except DataError as error:
        raise RefusedError(400, str(error)) from None
    known = kind.model_fields
    for name in value.keys() - known if isinstance(value, dict) else ():
        raise RefusedError(400, f"{shortened(name)}: unknown. {nearest(name, known)}")
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise RefusedError(400, first_problem(error, "the body")) from None


def vectors_of(body: bytes) -> Tensor:
    """Vectors in an uploaded file (.npy, .safetensors, JSON), by its first bytes: [n, d_model].

    One vector may come without its outer axis. Raises DataError.
    """
    if not body:
        raise DataError("the file is empty; .npy, .safetensors or JSON is expected.")
    if body[:1].isspace() or body[:1] in (b"[", b"{", b"\xef"):
        return vectors_in(parse_json(body, "the file"))
    tensors = _tensors(body, ".npy" if body.startswith(b"\x93NUMPY") else ".safetensors")
    if len(tensors) != 1:
        raise DataError(f"the file holds {len(tensors)} tensors; one is expected.")
    (tensor,) = tensors.values()
    if not tensor.is_floating_point():
        raise DataError(f"the file holds {tensor.dtype}; floating-point numbers are expected.")
    return _not_empty(as_vectors(tensor.float()))


def vectors_in(value: Any) -> Tensor:
    """[n, d_model] of a JSON value: numbers, lists of numbers, or an object that holds them.

    Raises DataError.
    """
    if isinstance(value, dict):
        value = value.get("vectors", value.get("vector"))
    return _not_empty(as_vectors(value))


def _not_empty(vectors: Tensor) -> Tensor:
    if not vectors.numel():
        raise DataError(f"vectors of shape {list(vectors.shape)}: [n, d_model] is expected.")
    return vectors


def _tensors(body: bytes, suffix: str) -> dict[str, Tensor]:
    """The tensors in an uploaded file, through the reader of files. Raises DataError."""
    with tempfile.TemporaryDirectory(prefix="selfie-") as folder:
        file = Path(folder) / f"upload{suffix}"
        file.write_bytes(body)
        try:
            return {name: tensor.clone() for name, tensor in open_tensors(file).items()}
        except DataError as error:
            if suffix == ".safetensors":  # everything that is nothing else
                raise DataError(
                    "the file is neither .npy, nor .safetensors, nor JSON, or it is damaged "
                    f"({str(error).removeprefix(f'{file}: ')})"
                ) from None
            raise DataError(str(error).replace(str(file), "the file")) from None
