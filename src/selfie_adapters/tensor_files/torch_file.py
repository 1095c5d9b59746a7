"""`.pt` files: what torch.save wrote, checked before torch reads it."""

from __future__ import annotations

import io
import pickle
import pickletools
import re
import tempfile
import warnings
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from selfie_adapters.errors import DataError, SelfieError, first_line
from selfie_adapters.files import UNWRITABLE, unwritable
from selfie_adapters.tensor_files.tensors import (
    FoundTensors,
    Unusable,
    plain,
    refuse_pointer,
    unpack_limit,
)

_PICKLE_FLOOR = 2**20
_MOST_TENSORS = 100_000
_LONGEST_NAME = 1024  # characters without whitespace between them


def torch_tensors(file: Path) -> FoundTensors:
    """The tensors anywhere in a `.pt`, by their keys. Raises DataError like `load_torch_file`."""
    return _tensors_in(file, load_torch_file(file))


def load_torch_file(file: Path) -> Any:
    """What `torch.save` stored in `file`: tensors on the CPU, mapped, containers and plain values.

    Raises DataError for a Git LFS pointer and for a file that is damaged, that would run code, or
    whose contents are out of proportion to its size; StorageError where the temporary folder has no
    room for a compressed one.
    """
    refuse_pointer(file)
    try:
        with file.open("rb") as opened, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's remarks on pickle protocols help nobody here
            if opened.read(2) == b"PK":
                return _load_archive(file, opened)
            _check_legacy(file, opened)
            return torch.load(file, map_location="cpu", weights_only=True)
    except SelfieError:
        raise
    except pickle.UnpicklingError as error:
        wanted = re.search(r"GLOBAL (\S+)", str(error))
        asks = f"asks to load {wanted[1]}" if wanted else "holds more than tensors and plain values"
        raise DataError(
            f"{file}: refused, nothing in it was run. It {asks}, and loading that could execute "
            "code. Use a .safetensors file, or save the tensor itself: torch.save(tensor, path)."
        ) from error
    # torch's reader meets damaged bytes with whichever error they happen to lead it to.
    except Exception as error:
        raise DataError(
            f"{file}: cut off, or not a file written by torch.save "
            f"({type(error).__name__}: {first_line(error)}). Copy or download it again."
        ) from error


def _load_archive(file: Path, opened: BinaryIO) -> Any:
    """Raises DataError for claims out of proportion, StorageError without room to unpack."""
    with zipfile.ZipFile(opened) as archive:
        members = archive.infolist()
        packed = [one for one in members if one.compress_type != zipfile.ZIP_STORED]
        if sum(one.file_size for one in packed) > unpack_limit(file):
            raise DataError(f"{file}: its compressed parts unpack to far more than the file.")
        stored = sum(one.file_size for one in members) - sum(one.file_size for one in packed)
        if stored > file.stat().st_size:
            raise DataError(f"{file}: cut off, or its parts overlap. Copy or download it again.")
        for member in members:
            if member.filename.endswith("/data.pkl"):
                _check_pickle_size(file, member.file_size)
                _check_pickle(file, io.BytesIO(archive.read(member)))
        if not packed:
            return torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        # torch maps the bytes of a compressed part as if they were the numbers.
        with tempfile.NamedTemporaryFile(suffix=".pt") as unpacked:
            try:
                with zipfile.ZipFile(unpacked, "w") as copy:
                    for member in members:
                        copy.writestr(member.filename, archive.read(member))
                unpacked.flush()
            except OSError as error:
                if error.errno not in UNWRITABLE:  # bzip2 reports damage with an OSError too
                    raise
                raise unwritable(unpacked.name, error) from error
            return torch.load(unpacked.name, map_location="cpu", weights_only=True, mmap=True)


def _check_legacy(file: Path, opened: BinaryIO) -> None:
    """The format before torch 1.6, which cannot be mapped: a row of pickles, then the numbers."""
    opened.seek(0)
    start = opened.read(512)
    if start[:1] != b"\x80" or start[257:262] == b"ustar":  # torch would unpack a tar archive
        raise DataError(
            f"{file}: cut off, or not a file written by torch.save (it begins with {start[:2]!r}). "
            "Copy or download it again."
        )
    opened.seek(0)
    for _ in range(4):  # a magic number, the version, the system, the content
        if not _check_pickle(file, opened):
            return


def _check_pickle_size(file: Path, size: int) -> None:
    """A pickle's objects may take 80 times its size: it must be a small part of a large file."""
    if size > _PICKLE_FLOOR and size > file.stat().st_size // 16:
        raise DataError(
            f"{file}: holds {size:,} bytes of Python objects besides its tensors. "
            "Save the tensor itself: torch.save(tensor, path)."
        )


def _check_pickle(file: Path, content: BinaryIO) -> bool:
    """Check the size and the names of the pickle at `content`; False if it is damaged, which torch
    reports."""
    begin = content.tell()
    try:
        for _operation, argument, position in pickletools.genops(content):
            _check_pickle_size(file, (position or begin) - begin)
            _check_name(file, argument)
    except DataError:  # is a ValueError too
        raise
    except (ValueError, KeyError):
        return False
    return True


def _check_name(file: Path, argument: Any) -> None:
    """Refuse a name that torch would repeat in its error and then search: in quadratic time."""
    if isinstance(argument, str) and len(argument) > _LONGEST_NAME:
        longest = max(map(len, argument.split()), default=0)
        if longest > _LONGEST_NAME:
            raise DataError(
                f"{file}: holds a name of {longest:,} characters; at most {_LONGEST_NAME:,} are "
                "expected. It is damaged: copy or download it again, or use a .safetensors file."
            )


def _tensors_in(file: Path, content: Any) -> dict[str, Tensor | Unusable]:
    """Tensors by key, or by path where a key occurs twice. Containers are visited once each."""
    found: dict[str, Tensor | Unusable] = {}
    seen: set[int] = set()
    waiting: list[tuple[str, str, Any]] = [("tensor", "tensor", content)]  # key, path, value
    while waiting:
        key, path, value = waiting.pop()
        if isinstance(value, Tensor):
            if len(found) == _MOST_TENSORS:
                raise DataError(f"{file}: more than {_MOST_TENSORS:,} tensors. Is it a model?")
            found[path if key in found else key] = plain(value)
        elif isinstance(value, dict | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            inner = (
                [(str(k), f"{path}.{k}", v) for k, v in value.items()]
                if isinstance(value, dict)
                else [(f"{key}[{i}]", f"{path}[{i}]", v) for i, v in enumerate(value)]
            )
            waiting.extend(reversed(inner))  # in the order of the file
    return found
