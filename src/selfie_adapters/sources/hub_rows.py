"""The rows of a data set on the hub: its Parquet, JSONL, JSON or CSV files, fetched once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from selfie_adapters.errors import DataError, DownloadError, first_line
from selfie_adapters.extras import is_installed, require_extra
from selfie_adapters.files import existing_file, looks_local
from selfie_adapters.sources.table_rows import KINDS, file_rows

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


def _has_parquet(repo: str) -> bool:
    """Whether the hub lists a Parquet file; False where that cannot be found out."""
    import huggingface_hub

    try:
        files = huggingface_hub.list_repo_files(repo, repo_type="dataset")
    except Exception:  # fetching the files says what is wrong
        return False
    return any(name.endswith(".parquet") for name in files)


def _fetched(repo: str) -> Path:
    import huggingface_hub

    if not is_installed("pyarrow") and _has_parquet(repo):
        require_extra("export", f"The data set {repo} (Parquet)")
    try:
        return Path(
            huggingface_hub.snapshot_download(
                repo, repo_type="dataset", allow_patterns=[f"*{kind}" for kind in KINDS]
            )
        )
    # the client lets errors of its HTTP library and of its download backend through as well
    except Exception as error:
        offline = " HF_HUB_OFFLINE is set." if huggingface_hub.constants.HF_HUB_OFFLINE else ""
        raise DownloadError(
            f"{repo}: there is no such file here, and the hub's data set cannot be "
            f"fetched ({first_line(error)}).{offline} Check the name and the network, or fetch it "
            "elsewhere and give a JSONL file."
        ) from error
