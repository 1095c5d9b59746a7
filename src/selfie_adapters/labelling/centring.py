"""Mean vectors: one a layer, subtracted from raw activations before they are labelled."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from selfie_adapters.errors import DataError, nearest
from selfie_adapters.files import existing_file


def load_mean(path: str | Path, layer: int, d_model: int) -> Tensor:
    """The tensor `layer_{layer}` of a mean-vectors file: [d_model], float32.

    Raises MissingFileError, or DataError if the file is no safetensors file, has no such layer, or
    holds another shape or NaN there.
    """
    file = existing_file(path)
    key = f"layer_{layer}"
    try:
        with safe_open(file, framework="pt") as opened:
            names = list(opened.keys())
            if key not in names:
                raise DataError(f'{file}: no tensor "{key}". {nearest(key, names)}')
            mean = opened.get_tensor(key)
    except SafetensorError as error:
        raise DataError(f"{file}: not a safetensors file ({error}).") from error
    if list(mean.shape) != [d_model]:
        raise DataError(
            f"{file}, {key}: shape {list(mean.shape)}; [{d_model}] is expected, the width of the "
            "vectors that it is subtracted from."
        )
    if not bool(torch.isfinite(mean.float()).all()):
        raise DataError(f"{file}, {key}: holds NaN or infinity.")
    return mean.float()
