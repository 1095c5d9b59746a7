"""Prompts from a text file."""

from __future__ import annotations

from pathlib import Path

from selfie_adapters.errors import DataError
from selfie_adapters.files.existing import existing_file
from selfie_adapters.files.text_lines import read_lines


def read_prompts(path: str | Path) -> list[str]:
    """One prompt per line, blank lines dropped. Raises MissingFileError, DataError."""
    file = existing_file(path)
    prompts = [line for _, line in read_lines(file)]
    if not prompts:
        raise DataError(f"{file}: no prompt; one per line is expected.")
    return prompts
