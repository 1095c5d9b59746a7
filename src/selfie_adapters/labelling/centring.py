"""Mean vectors: one per layer, subtracted from raw activations before they are labelled."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor

from selfie_adapters.errors import DataError, nearest
from selfie_adapters.files import existing_file
from selfie_adapters.tensor_files import open_tensors

# How the published programs call the mean of one layer's vectors.
_LAYER = re.compile(r"layer_[0-9]{1,4}")
_OF_LAYER = re.compile(r"_l(\d{1,4})_mean\.\w+$")
_SINGLE = "mean_vector"  # its name in their files of vectors and mean together


def load_mean(path: str | Path, layer: int, d_model: int) -> Tensor:
    """The mean vector of a layer: [d_model], float32.

    path: tensors `layer_{i}` in any format of `open_tensors`, or one 1-D tensor, which is the mean
    of its only layer. Raises MissingFileError, or DataError if the file is damaged, has no
    such layer, or holds another shape or NaN there.
    """
    file = existing_file(path)
    key = f"layer_{layer}"
    found = _means(file)
    if list(found) == [_SINGLE]:
        if (own := stated_layer(file)) not in (None, layer):
            raise DataError(
                f"{file}: the mean of layer {own}, as its name states; the vectors are of "
                f"layer {layer}. Give the mean of that layer."
            )
        key = _SINGLE
    elif key not in found:
        raise DataError(f'{file}: no tensor "{key}". {nearest(key, found)}')
    mean = found[key]
    if list(mean.shape) != [d_model]:
        raise DataError(
            f"{file}, {key}: shape {list(mean.shape)}; [{d_model}] is expected, the width of the "
            "vectors that it is subtracted from."
        )
    if not bool(torch.isfinite(mean.float()).all()):
        raise DataError(f"{file}, {key}: holds NaN or infinity.")
    return mean.float()


def mean_layers(path: str | Path) -> list[int]:
    """Layers for which a file of mean vectors holds one, in rising order.

    Raises MissingFileError; DataError for another file, and for a single mean whose file name does
    not state its layer.
    """
    file = existing_file(path)
    found = _means(file)
    if list(found) == [_SINGLE]:
        if (layer := stated_layer(file)) is None:
            raise DataError(
                f"{file}: one mean vector, and neither the file nor its name states the layer. "
                "Give the layer (--layers), or name the file …_l{layer}_mean.pt."
            )
        return [layer]
    return sorted(int(name.removeprefix("layer_")) for name in found)


def has_layer(path: str | Path, layer: int) -> bool:
    """Whether the file holds the mean of a layer; a single mean of an unknown one is of any."""
    file = existing_file(path)
    if is_single(file) and stated_layer(file) is None:
        return True
    return layer in mean_layers(file)


def is_single(path: str | Path) -> bool:
    """Whether the file holds one mean alone."""
    return list(_means(existing_file(path))) == [_SINGLE]


def stated_layer(file: Path) -> int | None:
    """The layer in a published file name, …_l{layer}_mean.pt."""
    match = _OF_LAYER.search(file.name)
    return int(match[1]) if match else None


def _means(file: Path) -> dict[str, Tensor]:
    """The tensors called layer_{i} or {i}, as layer_{i}; or the only 1-D one, as `mean_vector`."""
    found = open_tensors(file)
    flat = {name: tensor for name, tensor in found.items() if tensor.ndim == 1}
    layers = {
        full: tensor
        for name, tensor in found.items()
        if _LAYER.fullmatch(full := f"layer_{name.removeprefix('layer_')}")
        # A tensor called by a bare number may hold a layer's vectors; layer_{i} must be a mean.
        and (name in flat or name == full)
    }
    if layers:
        return layers
    if len(flat) == 1:
        return {_SINGLE: next(iter(flat.values()))}
    names = ", ".join(list(found)[:5]) or "none"
    raise DataError(
        f"{file}: one mean vector, or tensors layer_0, layer_1, …, are expected; found {names}."
    )
