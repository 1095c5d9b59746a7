"""One optimizer step: learning rates, and the gradient over batches, parts and processes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from selfie_adapters.adapters import Adapter
from selfie_adapters.adapters.base import ParameterGroup
from selfie_adapters.config import TrainingSection
from selfie_adapters.training.epochs import StepExamples
from selfie_adapters.training.ranks import Ranks
from selfie_adapters.training.setup import Setup

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


@dataclass(frozen=True)
class StepResult:
    """Sums over all processes. gradient_norm: before clipping. stop: one was asked to stop."""

    batch_losses: list[float]
    clamped: int
    tokens: int
    gradient_norm: float
    stop: bool


class NotFiniteError(Exception):
    """what: "loss" or "gradient", which is NaN or infinite; examples: those it was the mean of."""

    def __init__(self, what: str, examples: Tensor) -> None:
        super().__init__()
        self.what, self.examples = what, examples


def backward(setup: Setup, ranks: Ranks, examples: StepExamples, stop: bool) -> StepResult:
    """Put the step's gradient into the adapter: that of the mean over batches of each batch's
    mean loss over its examples, clipped. Every process ends with the same gradient.

    stop: whether this process is asked to stop; all are told.
    Raises NotFiniteError; TrainingError if another process is gone.
    """
    weight = 1 / len(examples.batches)
    objective, split, adapter = setup.objective, setup.train, setup.adapter
    rows: list[Tensor] = []
    losses: list[Tensor] = []
    clamped: list[Tensor] = []
    batch_of: list[int] = []
    tokens = 0
    for number, batch in enumerate(examples.batches):
        mine = ranks.share(batch)
        if not mine.numel():
            continue
        vectors, same = split.vectors(mine), split.vector_of[mine]
        for part in objective.microbatches(split.tokens, mine, same):
            soft = adapter(vectors[part])
            result = objective.microbatch_loss(soft, split.tokens, mine[part], same[part])
            loss = result.per_example.sum() / batch.numel()
            (loss * weight).backward()
            rows.append(mine[part])
            losses.append(loss.detach())
            clamped.append(result.clamped)
            batch_of.append(number)
            tokens += result.tokens
    # Looked at only here: a look at every part would have a GPU wait for the CPU each time.
    found = torch.stack(losses).cpu().double() if losses else torch.zeros(0, dtype=torch.float64)
    bad = (~found.isfinite()).nonzero().flatten().tolist()
    if bad:
        raise NotFiniteError("loss", torch.cat([rows[i] for i in bad]))
    gradients = []
    for parameter in adapter.parameters():
        if parameter.grad is None:  # no example of this step was this process's
            parameter.grad = torch.zeros_like(parameter)
        gradients.append(parameter.grad)
    sums = torch.zeros(len(examples.batches), dtype=torch.float64)
    sums.index_add_(0, torch.tensor(batch_of, dtype=torch.int64), found)
    clamped_here = int(torch.stack(clamped).sum()) if clamped else 0
    counts = torch.tensor([clamped_here, tokens, stop], dtype=torch.float64)
    ranks.add_up(gradients)
    ranks.add_up([sums, counts])
    limit = setup.config.training.gradient_clip_norm
    norm = float(nn.utils.clip_grad_norm_(list(adapter.parameters()), limit))
    if not math.isfinite(norm):
        raise NotFiniteError("gradient", examples.rows)
    clamped_there, tokens_there, stop_there = counts.tolist()
    return StepResult(sums.tolist(), int(clamped_there), int(tokens_there), norm, bool(stop_there))
