"""Values that are computed once per loaded network and dropped with it."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import TypeVar

from torch import nn

from selfie_adapters.model.loading import FrozenModel

T = TypeVar("T")


def once_per_network(compute: Callable[[FrozenModel], T]) -> Callable[[FrozenModel], T]:
    """`compute`, whose value for a network is kept as long as the network is.

    For what the weights' values do not change: the architecture's abilities and sizes.
    """
    known: weakref.WeakKeyDictionary[nn.Module, T] = weakref.WeakKeyDictionary()

    @functools.wraps(compute)
    def remembered(model: FrozenModel) -> T:
        if model.network not in known:
            known[model.network] = compute(model)
        return known[model.network]

    return remembered
