"""Cross-entropy of single tokens over a large vocabulary, without float32 copies of all logits.

The plain way keeps the logits three more times in float32 (cast, log-softmax, gradient). Here each
block of rows is cast, reduced and dropped; backward makes the gradient in the logits' own dtype.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_BLOCK_BYTES = 16 * 2**20  # float32 bytes worked on at once: about what a CPU's cache holds


class _TokenLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, smoothing: float) -> Tensor:
        losses, normalisers = [], []
        for block, wanted in _blocks(logits, targets):
            largest = block.amax(dim=-1, keepdim=True).float()
            values = block.float() - largest  # large logits lose no digits in the difference below
            right = values.gather(1, wanted.unsqueeze(1)).squeeze(1)
            mean = values.mean(dim=-1) if smoothing else None
            normaliser = values.exp_().sum(dim=-1).log_()
            loss = normaliser - right
            if mean is not None:
                loss = (1 - smoothing) * loss + smoothing * (normaliser - mean)
            losses.append(loss)
            normalisers.append(normaliser + largest.squeeze(1))
        ctx.save_for_backward(logits, targets, torch.cat(normalisers))
        ctx.smoothing = smoothing
        return torch.cat(losses)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (grad,) = grads
        logits, targets, normalisers = ctx.saved_tensors
        result = torch.empty_like(logits)
        at = 0
        for block, wanted in _blocks(logits, targets):
            rows = slice(at, at + block.shape[0])
            at += block.shape[0]
            # d loss / d logit = softmax - (1 - smoothing) * onehot - smoothing / vocabulary
            slope = (block.float() - normalisers[rows].unsqueeze(1)).exp_()
            if ctx.smoothing:
                slope -= ctx.smoothing / logits.shape[1]
            hot = torch.full_like(wanted, ctx.smoothing - 1, dtype=slope.dtype).unsqueeze(1)
            slope.scatter_add_(1, wanted.unsqueeze(1), hot)
            slope.mul_(grad[rows].unsqueeze(1))
            result[rows] = slope
        return result, None, None


def _blocks(logits: Tensor, targets: Tensor):
    rows = max(1, _BLOCK_BYTES // (4 * logits.shape[1]))
    if logits.device.type != "cpu":  # a GPU's memory is the only limit; few large kernels
        rows *= 64
    return zip(logits.split(rows), targets.split(rows), strict=True)


def token_losses(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of each token, in nats, float32: [tokens] from logits [tokens, vocabulary].

    With smoothing s: (1 - s) · CE(target) + s · mean over the vocabulary of CE, as
    `torch.nn.functional.cross_entropy(label_smoothing=s)` defines it.
    """
    return _TokenLoss.apply(logits, targets, label_smoothing)
