"""Rows of a file, whatever kind of table it is: Parquet, CSV with a header, JSONL, JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from selfie_adapters.errors import DataError
from selfie_adapters.extras import extra
from selfie_adapters.files import read_plain

KINDS = (".parquet", ".jsonl", ".jsonl.gz", ".json", ".json.gz", ".csv", ".csv.gz")
_LONGEST_FIELD = 10_000_000  # characters of a CSV field


def file_rows(file: Path, name: str | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every row of `file` with its place; CSV fields are texts.

    name: what messages call it. Raises MissingFileError; DataError for a file of no known kind, a
    damaged one, or a row that is no object; MissingExtraError without pyarrow.
    """
    name = name or str(file)
    kind = next((kind for kind in KINDS if file.name.lower().endswith(kind)), None)
    if kind is None:
        raise DataError(f"{name}: not one of {', '.join(KINDS)}. Name it by what it holds.")
    if kind == ".parquet":
        rows = _parquet_rows(name, file)
    else:
        try:
            text = read_plain(file).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise DataError(f"{name}: not UTF-8 text ({error}). Save it as UTF-8.") from error
        read = {".csv": _csv_rows, ".jsonl": _jsonl_rows, ".json": _json_rows}
        rows = read[kind.removesuffix(".gz")](name, text)
    for number, row in rows:
        place = f"{name}, row {number}"
        if not isinstance(row, dict):
            raise DataError(f"{place}: {row!r:.60}; an object is expected.")
        yield place, row


def _parquet_rows(name: str, file: Path) -> Iterator[tuple[int, Any]]:
    with extra("export", "Reading Parquet"):
        from pyarrow import ArrowInvalid, parquet
    number = 0
    try:
        for batch in parquet.ParquetFile(file).iter_batches(4096):
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except (ArrowInvalid, OSError) as error:
        raise DataError(f"{name}: not a Parquet file that can be read ({error}).") from error


def _csv_rows(name: str, text: str) -> Iterator[tuple[int, Any]]:
    csv.field_size_limit(_LONGEST_FIELD)
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        for number, row in enumerate(reader, start=1):
            if None in row:
                raise DataError(
                    f"{name}, row {number}: more columns than the header has. Put quotes around "
                    "texts with commas."
                )
            yield number, row
    except csv.Error as error:
        raise DataError(f"{name}, line {reader.line_num}: not CSV ({error}).") from error


def _jsonl_rows(name: str, text: str) -> Iterator[tuple[int, Any]]:
    # Not splitlines: JSON texts may hold U+2028 and other marks that it takes for line ends.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, _parsed(f"{name}, line {number}", line)


def _json_rows(name: str, text: str) -> Iterator[tuple[int, Any]]:
    whole = _parsed(name, text)
    yield from enumerate(whole if isinstance(whole, list) else [whole], start=1)


def _parsed(place: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place}: not JSON ({error}).") from error
