"""The language-model head: logits where they are needed, and cross-entropy over a large vocabulary.

Most heads are one linear layer on the decoder's output; some models then scale or cap the logits
(Granite, Gemma 2). Which it is, is tried once per model, not looked up by name.

A naive loss keeps the logits three more times in float32 (cast, log-softmax, gradient). Here each
block of rows is cast, reduced and dropped. `token_losses` starts from logits; `head_losses` from
the hidden states before a linear head, and never holds more than a block of logits. Several
targets may be asked of one row: the first tokens of labels that share a prompt.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache

from selfie_adapters.model import FrozenModel
from selfie_adapters.model.cache_use import UNSUPPORTED
from selfie_adapters.model.library import cache_of, forward, kept_rows
from selfie_adapters.model.loading import once_per_network

_BLOCK_BYTES = 16 * 2**20  # float32 bytes worked on at once: about what a CPU's cache holds


@dataclass(frozen=True)
class LmHead:
    """How a model's logits come from a forward pass.

    linear: the head, where the model's logits are its output on the decoder's last hidden state
    and nothing else, bit for bit. None: the whole network has to be run (scaled or capped logits;
    quantized heads and those whose weights are kept elsewhere).
    """

    model: FrozenModel
    decoder: Any
    linear: nn.Linear | None

    def hidden(
        self, keep: Tensor | None, use_cache: bool, cache: Cache | None = None, **inputs: Any
    ) -> tuple[Tensor, Cache | None]:
        """Hidden states before the linear head where `keep` is True: [kept, d_model], contiguous.

        keep: bool, [rows, tokens], on the model's device; None: the last token of each row. Kept
        states come in row-major order. Also returns the extended cache, None without use_cache.
        """
        output = forward(self.decoder, use_cache=use_cache, cache=cache, **inputs)
        states = output.last_hidden_state
        # On CPUs a head that is given a strided [rows, 1, d_model] copies its weight once per row.
        kept = states[:, -1].contiguous() if keep is None else states[keep.to(states.device)]
        return kept, cache_of(output) if use_cache else None

    def logits(
        self, keep: Tensor | None, use_cache: bool, cache: Cache | None = None, **inputs: Any
    ) -> tuple[Tensor, Cache | None]:
        """Logits where `hidden` would return hidden states: [kept, vocabulary]; and the cache."""
        if self.linear is not None:
            states, cache = self.hidden(keep, use_cache, cache, **inputs)
            return self.linear(states.to(self.linear.weight.device)), cache
        network = self.model.network
        last = 1 if keep is None else keep
        with _contiguous_input(network.get_output_embeddings()):
            output = forward(network, use_cache=use_cache, cache=cache, keep=last, **inputs)
        logits = output.logits[:, -1] if keep is None else kept_rows(output.logits, keep)
        return logits, cache_of(output) if use_cache else None


def lm_head(model: FrozenModel) -> LmHead:
    """The head of `model`."""
    head = model.network.get_output_embeddings()
    linear = head if isinstance(head, nn.Linear) and _is_linear(model) else None
    return LmHead(model, model.network.get_decoder(), linear)


@once_per_network
@torch.no_grad()
def _is_linear(model: FrozenModel) -> bool:
    """Whether the decoder and then the head give the network's logits bit for bit: two passes."""
    head = model.network.get_output_embeddings()
    # Subclasses (quantized layers) keep their weights in other forms.
    if type(head) is not nn.Linear or head.weight.device.type == "meta":
        return False
    ids = torch.arange(3, device=model.device).unsqueeze(0) % model.vocab_size
    logits = forward(model.network, input_ids=ids, use_cache=False).logits
    try:
        output = forward(model.network.get_decoder(), input_ids=ids, use_cache=False)
        found = head(output.last_hidden_state.to(head.weight.device))
    except UNSUPPORTED:  # a decoder that cannot be called alone
        return False
    return found.shape == logits.shape and torch.equal(found, logits)


def _contiguous_input(head: Any) -> AbstractContextManager[None]:
    """While open, the head's input is contiguous, for the reason given in `LmHead.hidden`."""
    return _hooked(head) if isinstance(head, nn.Module) else nullcontext()


@contextmanager
def _hooked(head: nn.Module) -> Iterator[None]:
    def hook(_module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (args[0].contiguous(), *args[1:])

    handle = head.register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


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
        losses, normalizers = targets.new_empty(targets.shape, dtype=torch.float32), []
        for rows in _blocks(logits.shape[0], logits):
            inside, local = _inside(rows, logits.shape[0], predictors)
            values, largest = _shifted(logits[rows])
            losses[inside], normalizer = _losses(values, local, targets[inside], smoothing)
            normalizers.append(normalizer + largest)
        ctx.save_for_backward(logits, targets, predictors, torch.cat(normalizers))
        ctx.smoothing = smoothing
        return losses

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (grad,) = grads
        logits, targets, predictors, normalizers = ctx.saved_tensors
        smoothing = ctx.smoothing
        result = torch.empty_like(logits)
        for rows in _blocks(logits.shape[0], logits):
            inside, local = _inside(rows, logits.shape[0], predictors)
            slope = (logits[rows].float() - normalizers[rows].unsqueeze(1)).exp_()
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
            inside, local = _inside(rows, hidden.shape[0], predictors)
            values, _ = _shifted(torch.nn.functional.linear(hidden[rows], weight, bias))
            losses[inside], normalizer = _losses(values, local, targets[inside], smoothing)
            if wanted:  # values hold exp(logit - largest) by now
                product = values.to(weight.dtype) @ weight
                expected[rows] = product / normalizer.exp().unsqueeze(1)
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


def _inside(rows: slice, of: int, predictors: Tensor) -> tuple[Tensor | slice, Tensor]:
    """The targets that `rows` predict, and the row of each, counted from the first."""
    if rows.stop - rows.start == of:  # without waiting for a GPU to find which
        return slice(None), predictors
    inside = ((predictors >= rows.start) & (predictors < rows.stop)).nonzero().squeeze(1)
    return inside, predictors[inside] - rows.start


def _shifted(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Logits minus their row's largest, float32, and that largest: large logits lose no digits."""
    largest = logits.amax(dim=-1, keepdim=True).float()
    return logits.float() - largest, largest.squeeze(1)


def _losses(
    values: Tensor, rows: Tensor, targets: Tensor, smoothing: float
) -> tuple[Tensor, Tensor]:
    """Losses of `targets` predicted by `rows` of the shifted logits, and each row's normalizer.

    `values` is left holding its exponential.
    """
    right = values[rows, targets]
    mean = values.mean(dim=-1)[rows] if smoothing else None
    normalizer = values.exp_().sum(dim=-1).log_()
    losses = normalizer[rows] - right
    if mean is not None:
        losses = (1 - smoothing) * losses + smoothing * (normalizer[rows] - mean)
    return losses, normalizer
