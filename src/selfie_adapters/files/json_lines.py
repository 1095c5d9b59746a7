"""Files of one JSON object per line that survive a kill: written row by row, read back row by row.

A writer killed in the middle of a row leaves a torn last line. Readers drop it, and the next
append removes it; a complete last row whose newline is missing counts for both.
"""

from __future__ import annotations

import gzip
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from io import FileIO
from pathlib import Path
from typing import IO, Any, TypeVar

from selfie_adapters.errors import DataError
from selfie_adapters.files.atomic import atomic_path, unwritable
from selfie_adapters.files.existing import existing_file
from selfie_adapters.files.json_text import parse_json

Value = TypeVar("Value")

_BLOCK = 1 << 16


def write_jsonl(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write rows, atomically, as gzip if the name ends in .gz. Returns how many.

    Raises StorageError if the file cannot be written.
    """
    count = 0
    with atomic_path(path) as temporary, temporary.open("wb") as plain, ExitStack() as stack:
        file: IO[bytes] | gzip.GzipFile = plain
        if str(path).endswith(".gz"):  # without a time: the same rows give the same bytes
            file = stack.enter_context(gzip.GzipFile("", "wb", fileobj=plain, mtime=0))
        for row in rows:
            file.write(_line(row))
            count += 1
    return count


def append_jsonl(path: str | Path, *rows: Mapping[str, Any]) -> None:
    """Append rows; either all of them end up in the file or, if writing fails, none.

    Raises StorageError if the disk is full or the file cannot be opened.
    """
    data = b"".join(map(_line, rows))
    try:
        with Path(path).open("ab+", buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            if tail := _unfinished_line(file, end):
                if _is_row(tail):
                    data = b"\n" + data
                else:
                    end -= len(tail)
                    file.truncate(end)
            try:
                while data:
                    data = data[file.write(data) :]
            except BaseException:
                file.truncate(end)
                raise
    except OSError as error:
        raise unwritable(path, error) from error


def iter_jsonl(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows with their line numbers (from 1), one at a time; blank lines are skipped.

    Raises MissingFileError if there is no such file, DataError naming file and line for a file that
    cannot be read, for a bad line that is not the last one, and for a row that is no JSON object.
    """
    source = existing_file(path)
    try:
        with source.open("rb") as file:
            yield from _numbered(file, lambda line, n: _row(line, str(source), n), torn_tail=True)
    except OSError as error:
        raise DataError(f"{source} cannot be read: {error.strerror or error}.") from error


def read_jsonl(path: str | Path) -> list[dict[str, Any]]:
    """All rows, without their line numbers. Raises like `iter_jsonl`."""
    return [row for _, row in iter_jsonl(path)]


def jsonl_values(name: str, data: bytes, hint: str = "") -> Iterator[tuple[int, Any]]:
    """The values in `data`, JSON Lines that others wrote, with their line numbers (from 1).

    Blank lines are skipped. Raises like `parse_json`, also for a torn last line; `name` and `hint`
    go into the message.
    """
    # Not splitlines: JSON strings may hold characters that it takes for line ends.
    return _numbered(io.BytesIO(data), lambda line, n: parse_json(line, name, hint, line=n))


def _numbered(
    lines: Iterable[bytes], parse: Callable[[bytes, int], Value], torn_tail: bool = False
) -> Iterator[tuple[int, Value]]:
    """Parsed lines with their numbers. torn_tail: a bad last line without a newline is skipped."""
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            value = parse(line, number)
        except DataError:
            if torn_tail and not line.endswith(b"\n"):
                return
            raise
        yield number, value


def _unfinished_line(file: FileIO, end: int) -> bytes:
    """What follows the last newline of a file of `end` bytes."""
    tail = b""
    while end and b"\n" not in tail:
        start = max(0, end - _BLOCK)
        file.seek(start)
        tail = file.read(end - start) + tail
        end = start
    return tail[tail.rfind(b"\n") + 1 :]


def _line(row: Mapping[str, Any]) -> bytes:
    return json.dumps(row, ensure_ascii=False).encode() + b"\n"


def _is_row(line: bytes) -> bool:
    try:
        _row(line, "", 0)
    except DataError:
        return False
    return True


def _row(line: bytes, file: str, number: int) -> dict[str, Any]:
    row = parse_json(line, file, "Each line is one JSON object.", line=number)
    if not isinstance(row, dict):
        raise DataError(
            f"{file}, line {number}: a JSON object is expected, found {row!r:.80}. Remove the line "
            "or restore the file."
        )
    return row
