"""The published split rule, kept so that everybody's held-out rows are the same."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from selfie_adapters.errors import DataError


def split_indices(
    indices: Iterable[int], val_fraction: float = 0.1, seed: int = 42
) -> tuple[list[int], list[int]]:
    """(train, val), each in index order.

    The sorted indices are shuffled with `numpy.random.RandomState(seed)`; the first
    max(1, ⌊n · val_fraction⌋) are validation. Raises DataError for a fraction outside (0, 1), a
    seed that numpy does not take, for duplicates, or for fewer than two indices.
    """
    ordered = sorted(indices)
    if not 0 < val_fraction < 1:
        raise DataError(f"val_fraction is {val_fraction}; a number between 0 and 1 is expected.")
    if not 0 <= seed < 2**32:
        raise DataError(f"seed is {seed}; an integer from 0 to {2**32 - 1} is expected.")
    if len(ordered) < 2:
        raise DataError(f"{len(ordered)} labelled rows cannot be split; at least 2 are needed.")
    if len(set(ordered)) != len(ordered):
        raise DataError("an index occurs twice among those to be split. Give each row once.")
    shuffled = list(ordered)
    np.random.RandomState(seed).shuffle(shuffled)
    held_out = set(shuffled[: max(1, int(len(ordered) * val_fraction))])
    train = [index for index in ordered if index not in held_out]
    return train, [index for index in ordered if index in held_out]
