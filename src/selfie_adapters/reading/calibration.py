"""The calibration that holds for the labels of a reading."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from selfie_adapters.labelling.confidence import Confidence, usable_confidence

MAX_NEW_TOKENS = 30
# How a cell's label is sampled, as a calibration records it.
_SAMPLING = {
    "scales": [1.0],
    "samples": 1,
    "best_of": False,
    "temperature": 0.0,
    "top_p": 1.0,
    "repetition_penalty": 1.0,
}

log = logging.getLogger(__name__)


def calibration(
    adapter_file: str | Path,
    path: str | Path | None = None,
    max_new_tokens: int = MAX_NEW_TOKENS,
    template: str | None = None,
    placeholder: str | None = None,
    **candidates: Any,
) -> Confidence | None:
    """The calibration file `path`, or else the one in the adapter's folder; None if there is none.

    It must have been fitted on labels sampled as a reading samples them: one, greedy, at scale 1,
    through the adapter's own prompt or the user's (template, placeholder); or from several
    candidates (`ReadSettings.candidates`).
    Raises ConfigError if `path` was not; one that is merely in the same folder is omitted with a
    warning.
    """
    prompt = {"template": template, "placeholder": placeholder}
    sampling = {**_SAMPLING, "max_new_tokens": max_new_tokens, **prompt, **candidates}
    found = usable_confidence(adapter_file, path, sampling, log.warning)
    return None if found is None else found[1]
