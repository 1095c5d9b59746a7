"""Rows of a file, whatever kind of table it is: Parquet, CSV with a header, JSONL, JSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from selfie_adapters.errors import DataError
from selfie_adapters.extras import extra
from selfie_adapters.files.existing import packed_limit, read_as, read_plain
from selfie_adapters.files.json_lines import jsonl_values
from selfie_adapters.files.json_text import parse_json

KINDS = (".parquet", ".jsonl", ".jsonl.gz", ".json", ".json.gz", ".csv", ".csv.gz")
_LONGEST_FIELD = 10_000_000  # characters of a CSV field


def file_rows(
    file: Path, name: str | None = None, columns: Sequence[str] | None = None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every row of `file` with its position for messages; CSV fields are strings.

    name: what messages call it. columns: those of a Parquet file that are read, all of which it
    must have; None: all. Raises MissingFileError; DataError for a file of no known kind, a
    damaged one, or a row that is no object; MissingExtraError without pyarrow.
    """
    name = name or str(file)
    kind = next((kind for kind in KINDS if file.name.lower().endswith(kind)), None)
    if kind is None:
        raise DataError(
            f"{name}: not one of {', '.join(KINDS)}. Give its name the suffix of its content."
        )
    if kind == ".parquet":
        rows = _parquet_rows(name, file, columns)
    else:
        read = {".csv": csv_rows, ".jsonl": jsonl_values, ".json": _json_rows}
        rows = read[kind.removesuffix(".gz")](name, read_plain(file))
    for number, row in rows:
        where = f"{name}, row {number}"
        if not isinstance(row, dict):
            raise DataError(
                f"{where}: {row!r:.60}; an object is expected. Write the row as an object with one "
                "key per column, or remove it."
            )
        yield where, row


def _parquet_rows(
    name: str, file: Path, columns: Sequence[str] | None
) -> Iterator[tuple[int, Any]]:
    with extra("export", "Reading Parquet"):
        from pyarrow import parquet
    number = 0
    with read_as(name, "a Parquet file"):
        table = parquet.ParquetFile(file)
        there = table.schema_arrow.names
        if missing := [column for column in columns or () if column not in there]:
            listed = ", ".join(there[:12])
            raise DataError(f"{name}: no column {missing[0]}; it has {listed}.")
        room = packed_limit(file.stat().st_size)
        for batch in table.iter_batches(1024, columns=columns and list(columns)):
            room -= batch.nbytes
            if room < 0:
                raise DataError(
                    f"{name}, after row {number}: its rows unpack to far more than the file's size."
                )
            for row in batch.to_pylist():
                number += 1
                yield number, row


def csv_rows(name: str, data: bytes) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows of a CSV file with a header, by the line each ends in; fields are strings.

    Raises DataError with `name` and the line for anything that is not CSV in UTF-8.
    """
    # The module's limit is global: it is set before each row, and other readers' set theirs.
    lines = io.TextIOWrapper(io.BytesIO(data), "utf-8-sig", newline="")
    reader = csv.DictReader(lines)
    while True:
        csv.field_size_limit(_LONGEST_FIELD)
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise DataError(f"{name}, line {reader.line_num}: not CSV ({error}).") from error
        except UnicodeDecodeError as error:
            raise DataError(
                f"{name}, after line {reader.line_num}: not UTF-8 text ({error.reason}). "
                "Save it as UTF-8."
            ) from error
        if row is None:
            return
        if None in row:
            raise DataError(
                f"{name}, line {reader.line_num}: more columns than the header has. Put quotes "
                'around values with commas; separate several labels by "|".'
            )
        yield reader.line_num, row


def _json_rows(name: str, data: bytes) -> Iterator[tuple[int, Any]]:
    value = parse_json(data, name)
    yield from enumerate(value if isinstance(value, list) else [value], start=1)
