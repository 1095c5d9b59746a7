"""Mean vectors: one per layer and kind of position, subtracted from raw activations before they are
labelled.

A file has `layer_{L}` where the vectors of a layer are of one kind of position, and
`layer_{L}_at_{kind}` where they are of several (dataset/captured.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from selfie_adapters.errors import DataError, nearest
from selfie_adapters.files import existing_file
from selfie_adapters.tensor_files import open_tensors

# `layer_{i}` is how the published programs call the mean of one layer's vectors.
_LAYER = re.compile(r"layer_([0-9]{1,4})(?:_at_(-?[0-9]{1,6}|name))?")
_OF_LAYER = re.compile(r"_l(\d{1,4})_mean\.\w+$")
_SINGLE = "mean_vector"  # its name in their files of vectors and mean together


def load_mean(path: str | Path, layer: int, d_model: int, kind: str | None = None) -> Tensor:
    """The mean vector of a layer: [d_model], float32.

    path: tensors `layer_{i}` or `layer_{i}_at_{kind}` in any format of `open_tensors`, or one 1-D
    tensor, which is the mean of its only layer. kind: the kind of position; None where it is not
    known, or where the file has one kind of that layer. A mean without a kind is of every kind.
    Raises MissingFileError, or DataError if the file is damaged, has no such layer or kind, or
    holds another shape or NaN there.
    """
    file = existing_file(path)
    found = _means(file)
    if list(found) == [_SINGLE]:
        if (own := stated_layer(file)) not in (None, layer):
            raise DataError(
                f"{file}: the mean of layer {own}, as its name states; the vectors are of "
                f"layer {layer}. Give the mean of that layer."
            )
        key = _SINGLE
    else:
        key = _key(file, found, layer, kind)
    mean = found[key]
    if list(mean.shape) != [d_model]:
        raise DataError(
            f"{file}, {key}: shape {list(mean.shape)}; [{d_model}] is expected, the width of the "
            "vectors that it is subtracted from."
        )
    if not bool(torch.isfinite(mean.float()).all()):
        raise DataError(f"{file}, {key}: holds NaN or infinity.")
    return mean.float()


def _key(file: Path, found: Mapping[str, Tensor], layer: int, kind: str | None) -> str:
    """The name of the mean of a layer and kind. Raises DataError if there is none."""
    plain = f"layer_{layer}"
    kinds = _kinds(found, layer)
    if not kinds:
        raise DataError(f'{file}: no tensor "{plain}". {nearest(plain, found)}')
    if kind is not None and kind in kinds:
        return f"{plain}_at_{kind}"
    if None in kinds:
        return plain
    if kind is None and len(kinds) == 1:
        return f"{plain}_at_{kinds[0]}"
    listed = ", ".join(f"{plain}_at_{one}" for one in kinds)
    if kind is None:
        raise DataError(
            f"{file}: it holds {listed}, and the vectors of layer {layer} do not state their "
            'position. Add "position" to the metadata of their section in the training file.'
        )
    raise DataError(
        f"{file}: no mean {plain}_at_{kind}; it holds {listed}. Give the file that was made with "
        "the vectors."
    )


def mean_kinds(path: str | Path, layer: int) -> list[str | None]:
    """Kinds of position that the file has a mean of a layer for, None for one that states none.

    Raises like `load_mean`; empty for a layer that is not there.
    """
    found = _means(existing_file(path))
    return [None] if list(found) == [_SINGLE] else _kinds(found, layer)


def _kinds(found: Mapping[str, Tensor], layer: int) -> list[str | None]:
    matches = [_LAYER.fullmatch(name) for name in found]
    return [match[2] for match in matches if match and int(match[1]) == layer]


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
    return sorted({int(match[1]) for name in found if (match := _LAYER.fullmatch(name))})


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
    """The tensors called layer_{i}, layer_{i}_at_{kind} or {i}, the last as layer_{i}; or the only
    1-D one, as `mean_vector`."""
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
