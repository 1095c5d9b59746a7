"""Cross-entropy of single tokens over a large vocabulary, without float32 copies of all logits.

The plain way keeps the logits three more times in float32 (cast, log-softmax, gradient). Here each
block of rows is cast, reduced and dropped. `token_losses` starts from logits; `head_losses` from
the hidden states before a plain linear head, and never holds more than a block of logits.

Several targets may be asked of one row: the first tokens of labels that share a prompt.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

_BLOCK_BYTES = 16 * 2**20  # float32 bytes worked on at once: about what a CPU's cache holds


def token_losses(
    logits: Tensor,
    targets: Tensor,
    label_smoothing: float = 0.0,
    predictors: Tensor | None = None,
) -> Tensor:
    """Cross-entropy of each target, in nats, float32: [targets] from logits [rows, vocabulary].

    predictors: [targets], the row that predicts each target; None: row i predicts target i.
    With smoothing s: (1 - s) · CE(target) + s · mean over the vocabulary of CE, as
    `torch.nn.functional.cross_entropy(label_smoothing=s)` defines it.
    """
    if predictors is None:
        predictors = torch.arange(targets.numel(), device=targets.device)
    return _TokenLoss.apply(logits, targets, predictors, label_smoothing)


def head_losses(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    label_smoothing: float,
    predictors: Tensor,
) -> Tensor:
    """`token_losses` of the logits `hidden @ weight.T + bias`, without ever holding them all.

    hidden: [rows, d_model]; weight: [vocabulary, d_model], which gets no gradient.
    """
    return _HeadLoss.apply(hidden, weight, bias, targets, predictors, label_smoothing)


class _TokenLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, targets: Tensor, predictors: Tensor, smoothing: float
    ) -> Tensor:
        losses, normalisers = targets.new_empty(targets.shape, dtype=torch.float32), []
        for rows in _blocks(logits.shape[0], logits):
            inside, local = _inside(rows, predictors)
            values, largest = _shifted(logits[rows])
            losses[inside], normaliser = _losses(values, local, targets[inside], smoothing)
            normalisers.append(normaliser + largest)
        ctx.save_for_backward(logits, targets, predictors, torch.cat(normalisers))
        ctx.smoothing = smoothing
        return losses

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (grad,) = grads
        logits, targets, predictors, normalisers = ctx.saved_tensors
        smoothing = ctx.smoothing
        result = torch.empty_like(logits)
        for rows in _blocks(logits.shape[0], logits):
            inside, local = _inside(rows, predictors)
            slope = (logits[rows].float() - normalisers[rows].unsqueeze(1)).exp_()
            # d loss / d logit = softmax - (1 - smoothing) * onehot - smoothing / vocabulary
            total = grad.new_zeros(slope.shape[0]).index_add(0, local, grad[inside]).unsqueeze(1)
            if smoothing:
                slope -= smoothing / logits.shape[1]
            slope.mul_(total)
            hot = (smoothing - 1) * grad[inside]
            slope.index_put_((local, targets[inside]), hot, accumulate=True)
            result[rows] = slope
        return result, None, None, None


class _HeadLoss(torch.autograd.Function):
    """The gradient is linear in what comes from above, so softmax @ weight is made on the way."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        predictors: Tensor,
        smoothing: float,
    ) -> Tensor:
        wanted = ctx.needs_input_grad[0]
        losses = targets.new_empty(targets.shape, dtype=torch.float32)
        expected = torch.empty_like(hidden) if wanted else hidden[:0]  # softmax @ weight
        for rows in _blocks(hidden.shape[0], weight.T):
            inside, local = _inside(rows, predictors)
            values, _ = _shifted(torch.nn.functional.linear(hidden[rows], weight, bias))
            losses[inside], normaliser = _losses(values, local, targets[inside], smoothing)
            if wanted:  # values hold exp(logit - largest) by now
                product = values.to(weight.dtype) @ weight
                expected[rows] = product / normaliser.exp().unsqueeze(1)
        ctx.save_for_backward(weight, expected, targets, predictors)
        ctx.smoothing = smoothing
        return losses

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        (grad,) = grads
        weight, expected, targets, predictors = ctx.saved_tensors
        pull = (1 - ctx.smoothing) * weight[targets].float()
        if ctx.smoothing:
            pull += ctx.smoothing * weight.mean(dim=0, dtype=torch.float32)
        each = (expected[predictors].float() - pull) * grad.unsqueeze(1)
        result = torch.zeros_like(expected, dtype=torch.float32).index_add(0, predictors, each)
        return result.to(expected.dtype), None, None, None, None, None


def _blocks(rows: int, width_like: Tensor) -> Iterator[slice]:
    """Slices of 0…rows-1 whose float32 logits (as wide as `width_like`) fit a cache."""
    size = max(1, _BLOCK_BYTES // (4 * width_like.shape[1]))
    if width_like.device.type != "cpu":  # a GPU's memory is the only limit; few large kernels
        size *= 64
    return (slice(at, min(at + size, rows)) for at in range(0, rows, size))


def _inside(rows: slice, predictors: Tensor) -> tuple[Tensor, Tensor]:
    """The targets that these rows predict, and the row of each, counted from the block's first."""
    inside = ((predictors >= rows.start) & (predictors < rows.stop)).nonzero().squeeze(1)
    return inside, predictors[inside] - rows.start


def _shifted(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Logits minus their row's largest, float32, and that largest: large logits lose no digits."""
    largest = logits.amax(dim=-1, keepdim=True).float()
    return logits.float() - largest, largest.squeeze(1)


def _losses(
    values: Tensor, rows: Tensor, targets: Tensor, smoothing: float
) -> tuple[Tensor, Tensor]:
    """Losses of `targets` predicted by `rows` of the shifted logits, and each row's normaliser.

    `values` is left holding its exponential.
    """
    right = values[rows, targets]
    mean = values.mean(dim=-1)[rows] if smoothing else None
    normaliser = values.exp_().sum(dim=-1).log_()
    losses = normaliser[rows] - right
    if mean is not None:
        losses = (1 - smoothing) * losses + smoothing * (normaliser[rows] - mean)
    return losses, normaliser
