"""The Hugging Face hub: files, and rows of data sets, fetched once into the hub's own cache; and
uploads."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from selfie_adapters.errors import (
    ConfigError,
    DataError,
    DownloadError,
    UploadError,
    first_line,
)
from selfie_adapters.extras import is_installed, require_extra
from selfie_adapters.files import existing_file, looks_local
from selfie_adapters.files.table_rows import KINDS, file_rows

RepoKind = Literal["model", "dataset"]

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


def is_repo_name(name: str) -> bool:
    """Whether `name` has the form of a repository's name: owner/name, no more."""
    return re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name, re.ASCII) is not None


def is_hub_name(name: str) -> bool:
    """Whether `name` can be a repository, and is not meant as a path here."""
    return is_repo_name(name) and not looks_local(name, KINDS)


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
    if not is_installed("pyarrow") and any(
        name.endswith(".parquet") for name in hub_file_names(repo)
    ):
        require_extra("export", f"The data set {repo} (Parquet)")
    return fetch_hub_files(
        repo,
        [f"*{kind}" for kind in KINDS],
        f"There is no file {repo} here; one in JSONL can be given instead.",
    )


def fetch_hub_files(
    repo: str, patterns: Sequence[str], otherwise: str = "", kind: RepoKind = "dataset"
) -> Path:
    """Local folder with the files of `repo` that match `patterns`; as `fetch_hub_file`."""
    import huggingface_hub

    return _fetched(
        repo,
        repo,
        lambda: huggingface_hub.snapshot_download(
            repo, repo_type=kind, allow_patterns=list(patterns)
        ),
        otherwise,
    )


def hub_file_names(repo: str, kind: RepoKind = "dataset") -> list[str]:
    """Names of the files of `repo`; none where that cannot be found out."""
    import huggingface_hub

    try:
        return huggingface_hub.HfApi().list_repo_files(repo, repo_type=kind)
    except Exception:  # fetching the files reports what is wrong
        return []


def upload_to_hub(
    repo: str, files: Mapping[str, Path | bytes], message: str, private: bool = False
) -> str:
    """Put `files` (name in the repository → a file here, or its content) into model repository
    `repo` as one commit, and return the address of the commit.

    A repository that does not exist is created; private: whether that one is. Raises ConfigError
    for what is no repository's name, UploadError naming repository and fix.
    """
    import huggingface_hub

    if not is_repo_name(repo):
        raise ConfigError(f'"{repo:.200}": the name of a repository, owner/name, is expected.')
    operations = [
        huggingface_hub.CommitOperationAdd(
            name, content if isinstance(content, bytes) else str(content)
        )
        for name, content in files.items()
    ]
    try:
        api = huggingface_hub.HfApi()
        with warnings.catch_warnings(action="ignore"):  # of the hub, about the card's metadata
            api.create_repo(repo, private=private, exist_ok=True)
            return api.create_commit(repo, operations, commit_message=message).commit_url
    # The client lets errors of its HTTP library and of its upload backend through as well.
    except Exception as error:
        fix = access_fix(repo, error, "write") or "Check network and HF_ENDPOINT."
        raise UploadError(f"{repo}: cannot be uploaded ({first_line(error)}). {fix}") from error


def _fetched(what: str, repo: str, fetch: Callable[[], str], otherwise: str) -> Path:
    try:
        return Path(fetch())
    # The client lets errors of its HTTP library and of its download backend through as well.
    except Exception as error:
        fix = access_fix(repo, error) or _network_fix(error)
        message = f"{what}: cannot be fetched from the hub ({first_line(error)}). {fix} {otherwise}"
        raise DownloadError(message.rstrip()) from error


def access_fix(
    repo: str, error: BaseException, access: Literal["read", "write"] = "read"
) -> str | None:
    """What to do where the hub refuses `repo`, by the hub's error or one that it caused.

    access: what was asked for. None for errors that are no refusal.
    """
    from huggingface_hub import constants, errors

    for cause in causes(error):
        status = getattr(getattr(cause, "response", None), "status_code", None)
        missing = isinstance(cause, errors.RepositoryNotFoundError)
        if access == "write" and (missing or status in (401, 403)):
            return f"Run `hf auth login` with a token that may write to {repo.split('/')[0]}."
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
