"""The Hugging Face hub: files, and rows of data sets, fetched once into the hub's own cache."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from selfie_adapters.errors import DataError, DownloadError, first_line
from selfie_adapters.extras import is_installed, require_extra
from selfie_adapters.files import existing_file, looks_local
from selfie_adapters.files.table_rows import KINDS, file_rows

_NOT_DATA = ("dataset_infos.json", "dataset_info.json")


def fetch_hub_file(repo: str, filename: str, otherwise: str = "") -> Path:
    """Local path of `filename` in `repo`, from the hub's own cache or downloaded into it.

    otherwise: what a user without network can do instead, for the message. Raises DownloadError
    naming repository, file and fix.
    """
    import huggingface_hub  # only what comes from a hub needs it

    return _fetched(
        f"{repo}/{filename}",
        repo,
        lambda: huggingface_hub.hf_hub_download(repo, filename),
        otherwise,
    )


def is_hub_name(name: str) -> bool:
    """Whether `name` can be a repository: owner/name, no more, and not meant as a path here."""
    named = re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name) is not None
    return named and not looks_local(name, KINDS)


def open_rows(source: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every row of a file, or of the hub data set of that name (owner/name), with its position.

    A file wins. Raises what `file_rows` and `hub_rows` raise.
    """
    if is_hub_name(source) and not Path(source).expanduser().exists():
        return hub_rows(source)
    return file_rows(existing_file(source))


def hub_rows(repo: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every row of data set `repo`, file by file in order of their names, with its position.

    If it has Parquet files only these are read: others would be the same rows again. Raises
    DownloadError if it cannot be fetched, DataError for files that hold no rows, MissingExtraError
    without pyarrow.
    """
    folder = _fetched_tables(repo)
    files = sorted(path for path in folder.rglob("*") if path.name.lower().endswith(KINDS))
    files = [path for path in files if path.is_file() and path.name not in _NOT_DATA]
    parquet = [path for path in files if path.suffix == ".parquet"]
    if not files:
        raise DataError(f"{repo}: the data set has no {', '.join(KINDS)} file.")
    for file in parquet or files:
        name = f"{repo}/{file.relative_to(folder).as_posix()}"
        yield from file_rows(file, name)


def _fetched_tables(repo: str) -> Path:
    """Local folder with the tables of data set `repo`."""
    import huggingface_hub

    if not is_installed("pyarrow") and _has_parquet(repo):
        require_extra("export", f"The data set {repo} (Parquet)")
    return _fetched(
        repo,
        repo,
        lambda: huggingface_hub.snapshot_download(
            repo, repo_type="dataset", allow_patterns=[f"*{kind}" for kind in KINDS]
        ),
        f"There is no file {repo} here; one in JSONL can be given instead.",
    )


def _has_parquet(repo: str) -> bool:
    """Whether the hub lists a Parquet file; False where that cannot be found out."""
    import huggingface_hub

    try:
        files = huggingface_hub.list_repo_files(repo, repo_type="dataset")
    except Exception:  # fetching the files reports what is wrong
        return False
    return any(name.endswith(".parquet") for name in files)


def _fetched(what: str, repo: str, fetch: Callable[[], str], otherwise: str) -> Path:
    try:
        return Path(fetch())
    # The client lets errors of its HTTP library and of its download backend through as well.
    except Exception as error:
        fix = access_fix(repo, error) or _network_fix(error)
        message = f"{what}: cannot be fetched from the hub ({first_line(error)}). {fix} {otherwise}"
        raise DownloadError(message.rstrip()) from error


def access_fix(repo: str, error: BaseException) -> str | None:
    """What to do where the hub refuses `repo`, by the hub's error or one that it caused.

    None for errors that are no refusal.
    """
    from huggingface_hub import constants, errors

    for cause in causes(error):
        status = getattr(getattr(cause, "response", None), "status_code", None)
        missing = isinstance(cause, errors.RepositoryNotFoundError)
        if isinstance(cause, errors.GatedRepoError) or (
            isinstance(cause, errors.HfHubHTTPError) and not missing and status in (401, 403)
        ):
            return (
                f"Access is restricted: ask for it at {constants.ENDPOINT}/{repo}, then run "
                "`hf auth login`."
            )
        if missing:
            return "Check the name (owner/name); for a private repository run `hf auth login`."
    return None


def _network_fix(error: Exception) -> str:
    from huggingface_hub import constants, errors

    if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
        return f"The hub's cache is in {constants.HF_HUB_CACHE}; HF_HOME moves it."
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return "The repository has no such file."
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set and it is not in the hub's cache: unset it."
    return "Check name, network and HF_ENDPOINT."


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error and those it was raised from."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__
