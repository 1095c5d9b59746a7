"""One sentence about why a model could not be loaded, with the fix for that reason."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from huggingface_hub import constants
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

from selfie_adapters.errors import first_line
from selfie_adapters.files import user_path


def not_loaded(name: str, error: Exception) -> str:
    """The message for `error`, raised by a library while it loaded the model `name`."""
    reason = first_line(error).strip().rstrip(".")
    if isinstance(error, (LookupError, AttributeError, TypeError, AssertionError)):
        reason = f"{type(error).__name__}: {reason}"  # these messages alone explain little
    return f'model "{name}" could not be loaded: {reason}. {_fix(name, error)}'


def _fix(name: str, error: Exception) -> str:
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return (
            'The model does not fit into the memory: use a smaller dtype, the device "auto" to '
            "spread it over all devices, or another device."
        )
    for cause in _causes(error):
        status = getattr(getattr(cause, "response", None), "status_code", None)
        if isinstance(cause, GatedRepoError) or (
            isinstance(cause, HfHubHTTPError)
            and not isinstance(cause, RepositoryNotFoundError)
            and status in (401, 403)
        ):
            return (
                f"Access is restricted: ask for it at {constants.ENDPOINT}/{name}, then run "
                "`hf auth login`."
            )
        if isinstance(cause, RepositoryNotFoundError):
            return "Check the name (owner/name); for a private repository run `hf auth login`."
    if "custom code" in str(error) or "trust_remote_code" in str(error):
        return (
            "Code from a model's own repository (trust_remote_code) is not run here. Use a version "
            "of the model that transformers knows."
        )
    if user_path(name).exists():
        return "Check that the files are complete and belong together, or download them again."
    if constants.HF_HUB_OFFLINE:
        return (
            "HF_HUB_OFFLINE is set, and the model is not in the hub's cache: unset it, or give a "
            'local folder, a .gguf file, or "demo".'
        )
    return (
        'Give a hub id (owner/name), a local folder, a .gguf file, or "demo". Without a network, '
        f"download the model elsewhere first ({Path(constants.HF_HUB_CACHE)} is the hub's cache)."
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and those it was raised from."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__
