"""`.safetensors` files; the library checks header and sizes before anything is read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import safe_open
from torch import Tensor

from selfie_adapters.errors import DataError, first_line
from selfie_adapters.files import read_as
from selfie_adapters.tensor_files.tensors import (
    FoundTensors,
    Unusable,
    plain,
    refuse_pointer,
)

MOST_TENSORS = 256


def safetensors_tensors(file: Path) -> FoundTensors:
    """The tensors of a file by name, mapped. Raises DataError for a damaged file and for one of so
    many tensors that it must be a model."""
    with opened_safetensors(file) as opened:
        names = list(opened.keys())
        # Counted first, so that a wrong file of many tensors is not read to be refused.
        if len(names) > MOST_TENSORS:
            raise DataError(f"{file}: {len(names)} tensors; this looks like a model, not vectors.")
        return {name: _tensor(opened, name) for name in names}


def safetensors_metadata(file: Path) -> dict[str, str]:
    """The metadata in a file's header; no tensor is read. Raises DataError for a damaged file."""
    with opened_safetensors(file) as opened:
        return dict(opened.metadata() or {})


@contextmanager
def opened_safetensors(file: Path) -> Iterator[safe_open]:
    """The library's reader of `file`. Raises DataError for a damaged file and a Git LFS pointer."""
    refuse_pointer(file)
    with read_as(file, "a safetensors file"), safe_open(file, framework="pt") as opened:
        yield opened


def _tensor(opened: safe_open, name: str) -> Tensor | Unusable:
    try:
        return plain(opened.get_tensor(name))
    except Exception as error:  # whichever error torch has for a dtype or shape it does not know
        return Unusable(f"cannot be read ({first_line(error)})")
