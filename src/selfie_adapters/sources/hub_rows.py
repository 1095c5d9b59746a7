"""The rows of a data set on the hub: its Parquet, JSONL or JSON files, fetched once."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from selfie_adapters.errors import DataError, DownloadError, MissingExtraError
from selfie_adapters.files import read_plain

_KINDS = (".parquet", ".jsonl", ".jsonl.gz", ".json", ".json.gz")
_NOT_DATA = ("dataset_infos.json", "dataset_info.json")


def is_hub_name(name: str) -> bool:
    """Whether `name` can be a repository: owner/name, no more."""
    return re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name) is not None


def hub_rows(repo: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every row of data set `repo`, file by file in order of their names, with its place.

    If it has Parquet files only these are read: others would be the same rows again. Raises
    DownloadError if it cannot be had, DataError for files that hold no rows, MissingExtraError
    without pyarrow.
    """
    folder = _fetched(repo)
    files = sorted(path for path in folder.rglob("*") if path.name.lower().endswith(_KINDS))
    files = [path for path in files if path.is_file() and path.name not in _NOT_DATA]
    parquet = [path for path in files if path.suffix == ".parquet"]
    if not files:
        raise DataError(f"{repo}: the data set has no {', '.join(_KINDS[:4])} file.")
    for file in parquet or files:
        name = f"{repo}/{file.relative_to(folder).as_posix()}"
        read = _parquet_rows if file.suffix == ".parquet" else _json_rows
        for number, row in read(name, file):
            if not isinstance(row, dict):
                raise DataError(f"{name}, row {number}: {row!r:.60}; an object is expected.")
            yield f"{name}, row {number}", row


def _fetched(repo: str) -> Path:
    import huggingface_hub

    try:
        return Path(
            huggingface_hub.snapshot_download(
                repo, repo_type="dataset", allow_patterns=[f"*{kind}" for kind in _KINDS]
            )
        )
    # the client lets errors of its HTTP library and of its download backend through as well
    except Exception as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        offline = " HF_HUB_OFFLINE is set." if huggingface_hub.constants.HF_HUB_OFFLINE else ""
        raise DownloadError(
            f"{repo}: there is no such file here, and the hub's data set cannot be had ({said})."
            f"{offline} Check the name and the network, or fetch it elsewhere and give a JSONL "
            "file."
        ) from error


def _parquet_rows(name: str, file: Path) -> Iterator[tuple[int, Any]]:
    try:
        from pyarrow import ArrowInvalid, parquet
    except ImportError as error:
        raise MissingExtraError("pyarrow", "export", "Reading Parquet") from error
    number = 0
    try:
        for batch in parquet.ParquetFile(file).iter_batches(4096):
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except (ArrowInvalid, OSError) as error:
        raise DataError(f"{name}: not a Parquet file that can be read ({error}).") from error


def _json_rows(name: str, file: Path) -> Iterator[tuple[int, Any]]:
    try:
        text = read_plain(file).decode("utf-8-sig")
        if not file.name.removesuffix(".gz").endswith(".jsonl"):
            whole = json.loads(text)
            yield from enumerate(whole if isinstance(whole, list) else [whole], start=1)
            return
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                yield number, json.loads(line)
    except ValueError as error:
        raise DataError(f"{name}: not UTF-8 JSON ({error}).") from error
