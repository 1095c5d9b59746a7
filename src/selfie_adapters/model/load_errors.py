"""One sentence about why a model could not be loaded, with the fix for that reason."""

from __future__ import annotations

from pathlib import Path

import torch
from huggingface_hub import constants

from selfie_adapters.errors import first_line
from selfie_adapters.files import user_path
from selfie_adapters.hub import access_fix


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
    if (fix := access_fix(name, error)) is not None:
        return fix
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
