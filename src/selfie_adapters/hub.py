"""The Hugging Face hub: files and data sets, fetched once into the hub's own cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from selfie_adapters.errors import DownloadError, first_line


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


def fetch_hub_data(repo: str, patterns: Sequence[str], otherwise: str = "") -> Path:
    """Local folder with the files of data set `repo` that match `patterns`; as `fetch_hub_file`."""
    import huggingface_hub

    return _fetched(
        repo,
        repo,
        lambda: huggingface_hub.snapshot_download(
            repo, repo_type="dataset", allow_patterns=list(patterns)
        ),
        otherwise,
    )


def hub_data_files(repo: str) -> list[str]:
    """Names of the files of data set `repo`; none where that cannot be found out."""
    import huggingface_hub

    try:
        return huggingface_hub.list_repo_files(repo, repo_type="dataset")
    except Exception:  # fetching the files reports what is wrong
        return []


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
