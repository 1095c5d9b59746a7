"""The rows of a data set on the hub: its Parquet, JSONL, JSON or CSV files, fetched once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from selfie_adapters.errors import DataError
from selfie_adapters.extras import is_installed, require_extra
from selfie_adapters.files import existing_file, looks_local
from selfie_adapters.files.table_rows import KINDS, file_rows
from selfie_adapters.hub import fetch_hub_data, hub_data_files

_NOT_DATA = ("dataset_infos.json", "dataset_info.json")


def is_hub_name(name: str) -> bool:
    """Whether `name` can be a repository: owner/name, no more, and not meant as a path here."""
    named = re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name) is not None
    return named and not looks_local(name, KINDS)


def open_rows(source: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every row, with its place, of a file, or of the hub data set of that name (owner/name).

    A file wins. Raises what `file_rows` and `hub_rows` raise.
    """
    if is_hub_name(source) and not Path(source).expanduser().exists():
        return hub_rows(source)
    return file_rows(existing_file(source))


def hub_rows(repo: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every row of data set `repo`, file by file in order of their names, with its place.

    If it has Parquet files only these are read: others would be the same rows again. Raises
    DownloadError if it cannot be fetched, DataError for files that hold no rows, MissingExtraError
    without pyarrow.
    """
    folder = _fetched(repo)
    files = sorted(path for path in folder.rglob("*") if path.name.lower().endswith(KINDS))
    files = [path for path in files if path.is_file() and path.name not in _NOT_DATA]
    parquet = [path for path in files if path.suffix == ".parquet"]
    if not files:
        raise DataError(f"{repo}: the data set has no {', '.join(KINDS)} file.")
    for file in parquet or files:
        name = f"{repo}/{file.relative_to(folder).as_posix()}"
        yield from file_rows(file, name)


def _fetched(repo: str) -> Path:
    if not is_installed("pyarrow") and any(f.endswith(".parquet") for f in hub_data_files(repo)):
        require_extra("export", f"The data set {repo} (Parquet)")
    otherwise = f"There is no file {repo} here; one in JSONL can be given instead."
    return fetch_hub_data(repo, [f"*{kind}" for kind in KINDS], otherwise)
