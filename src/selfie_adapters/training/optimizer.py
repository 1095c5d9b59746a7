"""The optimizer over an adapter's few parameters, and the learning rate at each step."""

from __future__ import annotations

import math

import torch

from selfie_adapters.adapters import Adapter
from selfie_adapters.adapters.base import ParameterGroup
from selfie_adapters.config import TrainingSection

WARMUP_START = 1e-6


def make_optimizer(adapter: Adapter, settings: TrainingSection) -> torch.optim.Optimizer:
    """AdamW or SGD with momentum, with the parameter groups that the adapter's class declares.

    Each group has a learning rate of its own where the configuration sets one. The scale is never
    decayed. Raises AdapterError for a parameter without a group.
    """
    base, decay = settings.learning_rate, settings.weight_decay
    settings_of: dict[ParameterGroup, tuple[float | None, float]] = {
        "scale": (settings.scale_learning_rate, 0.0),
        "direction": (settings.direction_learning_rate, decay),
        "bias": (settings.bias_learning_rate, decay),
    }
    groups = []
    for name, members in adapter.grouped_parameters().items():
        rate, decay = settings_of[name]
        peak = base if rate is None else rate
        groups.append({"name": name, "params": members, "peak": peak, "weight_decay": decay})
    if not groups:  # the identity has no parameters, and torch requires a group all the same
        groups = [{"name": "none", "params": [], "peak": base}]
    if settings.optimizer_type == "adamw":
        return torch.optim.AdamW(groups, lr=base)
    return torch.optim.SGD(groups, lr=base, momentum=settings.momentum)


def rate_factor(step: int, total: int, warmup: int, kind: str) -> float:
    """What the learning rate is multiplied by at optimizer step `step` (from 0).

    Linear from 1e-6 to 1 over `warmup` steps; then, over the other `total - warmup`, half a
    cosine to 0, a straight line to 0, or 1 throughout.
    """
    if step < warmup:
        return WARMUP_START + (1 - WARMUP_START) * step / warmup
    done = min(1.0, (step - warmup) / max(1, total - warmup))
    match kind:
        case "cosine":
            return 0.5 * (1 + math.cos(math.pi * done))
        case "linear":
            return 1 - done
        case _:
            return 1.0


def set_rates(
    optimizer: torch.optim.Optimizer, settings: TrainingSection, step: int, total: int
) -> dict[str, float]:
    """Give every group its learning rate for optimizer step `step` (from 0) of `total`.

    Returns the rates by group. A function of the step alone, so none of it has to be saved.
    """
    factor = rate_factor(step, total, settings.warmup_steps, settings.scheduler_type)
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor
    return {group["name"]: group["lr"] for group in optimizer.param_groups}
