"""The means that are subtracted from the states of a prompt, by layer and kind of position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from selfie_adapters.dataset.captured import kind_of_token
from selfie_adapters.errors import DataError
from selfie_adapters.labelling.centering import (
    has_layer,
    is_single,
    load_mean,
    mean_kinds,
    mean_layers,
)


@dataclass(frozen=True)
class ReadingMeans:
    """by_layer: for each layer that is read, in order, mean vectors [d_model] by kind of position.

    source: the file, for messages. layers: their numbers.
    """

    source: str
    layers: tuple[int, ...]
    by_layer: tuple[dict[str | None, Tensor], ...]

    def at(self, positions: Sequence[int], tokens: int) -> Tensor:
        """Means for some positions of a prompt of `tokens` tokens: [layers, positions, d_model].

        Raises DataError for a token whose kind of position has no mean.
        """
        rows = []
        for layer, means in zip(self.layers, self.by_layer, strict=True):
            try:
                kinds = [kind_of_token(position, tokens, means) for position in positions]
            except KeyError as error:
                number = error.args[0]
                known = ", ".join(f"layer_{layer}_at_{kind}" for kind in means)
                raise DataError(
                    f"{self.source}: no mean for token {number} of {tokens} ({number - tokens} "
                    f"from the end); it holds {known}. Read those positions (--positions), or give "
                    f"a file that has layer_{layer}_at_name."
                ) from None
            rows.append(torch.stack([means[kind] for kind in kinds]))
        return torch.stack(rows)


def read_means(path: str | Path, layers: Sequence[int], d_model: int) -> ReadingMeans:
    """The means of `layers` from a file of means (labelling/centering.py).

    Raises DataError for a layer that is not there, another width, NaN or infinity.
    """
    if is_single(path) and len(layers) > 1:
        raise DataError(
            f"{path}: the mean of one layer; {len(layers)} layers are read. Read one, or give a "
            "file with layer_0, layer_1, …."
        )
    missing = [layer for layer in layers if not has_layer(path, layer)]
    if missing:
        known = mean_layers(path)
        raise DataError(
            f"{path}: no mean vector layer_{missing[0]}; it holds layers "
            f"{', '.join(map(str, known))}. Read those, or make a file with more."
        )
    means = tuple(
        {kind: load_mean(path, layer, d_model, kind) for kind in mean_kinds(path, layer)}
        for layer in layers
    )
    return ReadingMeans(str(path), tuple(layers), means)
