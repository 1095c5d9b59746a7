"""Prompts from a text file."""

from __future__ import annotations

from pathlib import Path

from selfie_adapters.errors import DataError
from selfie_adapters.files.existing import existing_file, read_plain


def read_prompts(path: str | Path) -> list[str]:
    """One prompt per line, blank lines dropped. Raises MissingFileError, DataError."""
    file = existing_file(path)
    try:
        lines = read_plain(file).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not UTF-8 text ({error.reason}). Save it as UTF-8.") from error
    prompts = [line for line in lines if line.strip()]
    if not prompts:
        raise DataError(f"{file}: no prompt; one per line is expected.")
    return prompts
