"""The optimizer over an adapter's few parameters, and the learning rate at each step."""

from __future__ import annotations

import math

import torch

from selfie_adapters.adapters import Adapter
from selfie_adapters.config import TrainingSection

WARMUP_START = 1e-6


def make_optimizer(adapter: Adapter, settings: TrainingSection) -> torch.optim.Optimizer:
    """AdamW or SGD with momentum; one group a role, so that each can have its own rate.

    Roles: scale (`log_scale`, never decayed), direction (`U`, `V`, `weight`), bias.
    """
    base = settings.learning_rate
    roles = {
        "scale": (["log_scale"], settings.scale_learning_rate, 0.0),
        "direction": (["U", "V", "weight"], settings.direction_learning_rate, None),
        "bias": (["bias"], settings.bias_learning_rate, None),
    }
    parameters = dict(adapter.named_parameters())
    groups = []
    for role, (names, rate, decay) in roles.items():
        members = [parameters[name] for name in names if name in parameters]
        if members:
            groups.append(
                {
                    "name": role,
                    "params": members,
                    "peak": base if rate is None else rate,
                    "weight_decay": settings.weight_decay if decay is None else decay,
                }
            )
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

    Returns the rates by role. A function of the step alone: nothing of it has to be saved.
    """
    factor = rate_factor(step, total, settings.warmup_steps, settings.scheduler_type)
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor
    return {group["name"]: group["lr"] for group in optimizer.param_groups}
