"""One file of a hub repository, fetched once."""

from __future__ import annotations

from pathlib import Path

from selfie_adapters.errors import DownloadError, first_line


def fetch_hub_file(repo: str, filename: str) -> Path:
    """Local path of `filename` in `repo`, from the hub's own cache or downloaded into it.

    Raises DownloadError naming repository, file and fix.
    """
    import huggingface_hub  # only what comes from a hub needs it

    try:
        return Path(huggingface_hub.hf_hub_download(repo, filename))
    # The client lets errors of its HTTP library and of its download backend through as well.
    except Exception as error:
        raise DownloadError(
            f"{repo}/{filename}: cannot be fetched from the hub ({first_line(error)}). "
            f"{_fix(error)}"
        ) from error


def _fix(error: Exception) -> str:
    from huggingface_hub import constants, errors

    if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
        return f"The hub's cache is in {constants.HF_HUB_CACHE}; HF_HOME moves it."
    if isinstance(error, errors.GatedRepoError):
        return "Ask for access on the repository's page, then: hf auth login."
    if isinstance(error, errors.RepositoryNotFoundError):
        return "Check the name; for a private repository: hf auth login."
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return "The repository has no such file: its layout is not what SAELens' registry says."
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set and the file is not in the hub's cache: unset it."
    return "Check network and HF_ENDPOINT, or fetch the file elsewhere and give it as --sae-path."
