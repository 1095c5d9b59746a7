"""Read and write the JSON of a training file, gzip or not."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import msgspec

from selfie_adapters.errors import DataError
from selfie_adapters.files import atomic_path, existing_file, read_plain


def read_document(path: str | Path) -> Any:
    """The decoded JSON; gzip is known by its first bytes, not by the name.

    Raises MissingFileError, or DataError naming the file for anything that is not JSON.
    """
    file = existing_file(path)
    data = read_plain(file)
    if not data.strip():
        raise DataError(f"{file}: the file is empty. A list of sections is expected.")
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataError(
            f"{file}: not JSON ({error}). The training format is JSON, see docs/formats.md."
        ) from error


def write_document(path: str | Path, document: Any) -> None:
    """Write JSON, gzipped if the name ends in .gz (the same content gives the same bytes)."""
    data = msgspec.json.encode(document)
    if Path(path).name.endswith(".gz"):
        data = gzip.compress(data, mtime=0)
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)
