"""Keep the progress bars and warnings of other libraries out of the output while a model loads."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

from huggingface_hub.utils import (
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
)
from transformers import modeling_gguf_pytorch_utils
from transformers.utils import logging as transformers_logging


@contextlib.contextmanager
def quiet_loading() -> Iterator[None]:
    """Inside, transformers and the hub client print neither bars nor warnings.

    The caller's own choices are restored afterwards.
    """
    level = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    hub_bars = not are_progress_bars_disabled()
    transformers_logging.set_verbosity_error()
    with without_warnings():  # the hub client warns where HF_HUB_DISABLE_PROGRESS_BARS has decided
        transformers_logging.disable_progress_bar()  # switches the hub's bars off as well
    try:
        with _no_gguf_bar():
            yield
    finally:
        transformers_logging.set_verbosity(level)
        with without_warnings():
            if bars:
                transformers_logging.enable_progress_bar()  # switches the hub's bars on as well
            (enable_progress_bars if hub_bars else disable_progress_bars)()


@contextlib.contextmanager
def without_warnings() -> Iterator[None]:
    """Inside, Python warnings are ignored."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def _no_gguf_bar() -> Iterator[None]:
    """transformers' GGUF reader calls tqdm itself, past the switch for its other bars."""
    bar = getattr(modeling_gguf_pytorch_utils, "tqdm", None)
    if bar is None:
        yield
        return

    def silent(*args: Any, **options: Any) -> Any:
        return bar(*args, **{**options, "disable": True})

    modeling_gguf_pytorch_utils.tqdm = silent
    try:
        yield
    finally:
        modeling_gguf_pytorch_utils.tqdm = bar
