"""The adapter kinds by name, and the one way to make a new adapter."""

from __future__ import annotations

import math

import torch

from selfie_adapters.adapters.affine import FullRank, Identity, ScalarAffine, ScaleOnly
from selfie_adapters.adapters.base import Adapter
from selfie_adapters.adapters.low_rank import LowRankOnly, ScalarAffinePlusLowRank
from selfie_adapters.errors import AdapterError, nearest

KINDS: dict[str, type[Adapter]] = {
    kind.kind: kind
    for kind in (
        Identity,
        ScaleOnly,
        ScalarAffine,
        LowRankOnly,
        ScalarAffinePlusLowRank,
        FullRank,
    )
}

_WIDEST = 2**20


def create_adapter(
    kind: str,
    dim: int,
    *,
    normalize_input: bool = True,
    init_scale: float = 30.0,
    low_rank_rank: int | None = None,
    low_rank_init_factor: float = 0.01,
    seed: int | None = None,
) -> Adapter:
    """A new adapter of `kind` for vectors of width `dim`, on the CPU, at its initial values.

    `normalize_input`: divide each vector by its L2 norm first. `init_scale`: the norm of the soft
    token of a unit vector at the start. `low_rank_rank`: the rank r of U Vᵀ, for the two low-rank
    kinds only (None elsewhere). `low_rank_init_factor`: how much smaller than the scale the factors
    start. `seed`: for the random initial values; without it torch's global generator is used.
    Raises AdapterError for an unknown kind and for a value that does not fit the kind.
    """
    adapter = build_adapter(
        kind,
        dim,
        normalize_input=normalize_input,
        init_scale=init_scale,
        low_rank_rank=low_rank_rank,
        low_rank_init_factor=low_rank_init_factor,
    )
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    adapter.reset_parameters(generator)
    return adapter


def build_adapter(
    kind: str,
    dim: int,
    *,
    normalize_input: bool,
    init_scale: float,
    low_rank_rank: int | None,
    low_rank_init_factor: float,
) -> Adapter:
    """An adapter whose parameters are allocated and hold no meaningful values yet.

    Options are checked; raises AdapterError as `create_adapter` does.
    """
    if kind not in KINDS:
        raise AdapterError(f'unknown adapter kind "{kind:.60}". {nearest(kind, KINDS)}')
    if not _whole(dim) or dim < 1:
        raise AdapterError(f"dim must be a whole number of at least 1, not {dim!r}.")
    if dim > _WIDEST:
        raise AdapterError(f"dim is {dim:.3g}; no model is wider than {_WIDEST:,}.")
    for name, value in (
        ("init_scale", init_scale),
        ("low_rank_init_factor", low_rank_init_factor),
    ):
        if not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
            raise AdapterError(f"{name} must be a number above 0, not {value!r}.")
    if KINDS[kind].takes_rank:
        if low_rank_rank is None:
            raise AdapterError(f"{kind} needs low_rank_rank, the rank of U Vᵀ, such as 16.")
        if not _whole(low_rank_rank) or not 1 <= low_rank_rank <= dim:
            raise AdapterError(
                f"low_rank_rank must be a whole number from 1 to {dim} (the width), "
                f"not {low_rank_rank!r}."
            )
    elif low_rank_rank is not None:
        with_rank = " and ".join(name for name, cls in KINDS.items() if cls.takes_rank)
        raise AdapterError(
            f"{kind} has no low-rank part: leave low_rank_rank out (it is {low_rank_rank!r}), "
            f"or choose a kind that has one: {with_rank}."
        )
    return KINDS[kind](
        dim,
        normalize_input=normalize_input,
        init_scale=init_scale,
        low_rank_rank=low_rank_rank,
        low_rank_init_factor=low_rank_init_factor,
    )


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
