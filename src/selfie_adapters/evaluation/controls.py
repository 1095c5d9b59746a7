"""Plain SelfIE: the vector itself, unit norm, times a scale, as the control called untrained."""

from __future__ import annotations

from selfie_adapters.adapters import Adapter, create_adapter

UNTRAINED_SCALES = (1.0, 3.0, 6.0, 12.0)


def untrained_adapter(dim: int, scale: float) -> Adapter:
    """f(x) = scale · x / ‖x‖: what an adapter is before training."""
    return create_adapter("scale_only", dim, init_scale=scale)
