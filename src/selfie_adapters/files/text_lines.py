"""Lines of a text file, and prompts from one."""

from __future__ import annotations

import io
from codecs import BOM_UTF8
from collections.abc import Iterator
from pathlib import Path

from selfie_adapters.errors import DataError
from selfie_adapters.files.existing import existing_file, read_plain
from selfie_adapters.files.memory import MemoryLimit, size_of

_PLACE = 130  # bytes of a line's number and places


def text_lines(file: Path, data: bytes) -> Iterator[tuple[int, str]]:
    """Lines of `data` that are not blank, with their numbers (from 1) and without their ends.

    UTF-8 with or without a byte order mark; lines end with \\n or \\r\\n. Raises DataError naming
    `file` and the line that is not UTF-8.
    """
    for number, line in enumerate(io.BytesIO(data.removeprefix(BOM_UTF8)), start=1):
        try:
            text = line.decode().removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError as error:
            raise DataError(
                f"{file}, line {number}: not UTF-8 text ({error.reason}). Save it as UTF-8."
            ) from error
        if text.strip():
            yield number, text


def read_lines(file: Path) -> list[tuple[int, str]]:
    """`text_lines` of a file, gzip or not. Raises like `text_lines` and `read_plain`, and DataError
    for more short lines than fit into memory."""
    data = read_plain(file)
    limit, lines = MemoryLimit(str(file), len(data), held=len(data)), []
    for number, line in text_lines(file, data):
        limit.take(size_of(line) + _PLACE)
        lines.append((number, line))
    return lines


def read_prompts(path: str | Path) -> list[str]:
    """One prompt per line, blank lines dropped. Raises MissingFileError, DataError."""
    file = existing_file(path)
    prompts = [line for _, line in read_lines(file)]
    if not prompts:
        raise DataError(f"{file}: no prompt; one per line is expected.")
    return prompts
