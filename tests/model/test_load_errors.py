"""The hint that follows the reason why a model could not be loaded."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

from selfie_adapters.model.loading import not_loaded


def _hub_error(kind, status):
    response = SimpleNamespace(status_code=status, headers={}, request=None)
    return kind("no", response=response)


def _wrapped(cause):
    """As transformers raises it."""
    try:
        raise OSError("You are trying to access a gated repo.\nMore lines.") from cause
    except OSError as error:
        return error


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (_wrapped(_hub_error(GatedRepoError, 403)), "Access is restricted: ask for it at"),
        (_wrapped(_hub_error(HfHubHTTPError, 401)), "Access is restricted: ask for it at"),
        (_wrapped(_hub_error(RepositoryNotFoundError, 401)), r"Check the name \(owner/name\)"),
        (_wrapped(_hub_error(HfHubHTTPError, 500)), "HF_HUB_OFFLINE is set"),
        (torch.OutOfMemoryError("CUDA out of memory."), "does not fit into the memory"),
        (KeyError("hidden_size"), "HF_HUB_OFFLINE is set"),
    ],
)
def test_the_hint_fits_the_reason(error, hint):
    message = not_loaded("owner/model", error)
    assert re.search(hint, message)
    assert ("hf auth login" in message) == ("Access" in hint or "Check the name" in hint)
    assert "More lines" not in message


def test_a_local_folder_gets_no_hint_about_the_hub(tmp_path):
    message = not_loaded(str(tmp_path), ValueError("header too large"))
    assert "header too large. Check that the files are complete" in message
    assert "login" not in message
