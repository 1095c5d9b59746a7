"""Sample next tokens so that a row's tokens depend on its own seed alone, not on its batch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypedDict

import torch
from torch import Tensor

from selfie_adapters.config.sampling import Sampling


class SamplingOptions(TypedDict, total=False):
    """The fields of `Sampling` as keyword arguments."""

    temperature: float
    top_p: float
    repetition_penalty: float
    max_new_tokens: int
    stop_at_quote: bool


def row_seed(seed: int, *position: float | str) -> int:
    """A 63-bit seed for one row, from the run's seed and the row's index, scale and sample."""
    text = ":".join(repr(part) for part in (seed, *position))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) >> 1


def row_uniforms(seeds: Sequence[int], steps: int) -> Tensor:
    """Uniform numbers in [0, 1): [rows, steps], row i drawn from seeds[i] alone."""
    drawn = torch.empty(len(seeds), steps)
    for i, seed in enumerate(seeds):
        drawn[i] = torch.rand(steps, generator=torch.Generator().manual_seed(seed))
    return drawn


def penalized(logits: Tensor, so_far: Tensor, penalty: float) -> Tensor:
    """Logits with the tokens that a row has generated made less likely: the repetition penalty.

    logits: [rows, vocabulary]; so_far: [rows, tokens generated]. A positive logit is divided by
    `penalty`, a negative one multiplied; 1 changes nothing.
    """
    if penalty == 1 or not so_far.shape[1]:
        return logits
    seen = logits.gather(1, so_far)
    return logits.scatter(1, so_far, torch.where(seen > 0, seen / penalty, seen * penalty))


def next_tokens(
    logits: Tensor, sampling: Sampling, uniforms: Tensor, so_far: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """One token per row and its log-probability under the unmodified distribution.

    logits: [rows, vocabulary]; uniforms: [rows] in [0, 1); so_far: [rows, tokens generated], which
    the repetition penalty makes less likely. Temperature 0 takes the most likely
    token. Otherwise: the tokens in falling order of probability, cut where the sum of those before
    reaches top_p (the first always stays), and the one in which `uniforms` falls.
    """
    values = logits.float()
    scores = values
    if so_far is not None:
        scores = penalized(values, so_far, sampling.repetition_penalty)
    if sampling.temperature == 0:
        chosen = scores.argmax(dim=-1)
    else:
        probabilities = (scores / sampling.temperature).softmax(dim=-1)
        chosen = _sampled(probabilities, sampling.top_p, uniforms)
    log_probs = values.gather(1, chosen.unsqueeze(1)).squeeze(1) - values.logsumexp(dim=-1)
    return chosen, log_probs


_LIKELY = 256  # tokens of a row that are ranked first; a nucleus is rarely larger


def _sampled(probabilities: Tensor, top_p: float, uniforms: Tensor) -> Tensor:
    """[rows]. Ranking a whole vocabulary costs as much as a small model's step, so the likely
    tokens are ranked alone where they hold the nucleus; the token sampled is the same."""
    if probabilities.shape[1] <= _LIKELY:
        return _from_ranked(*_ranked(probabilities), top_p, uniforms)
    some = probabilities.topk(_LIKELY, dim=-1).indices.sort(dim=-1).values  # equal ones: by number
    ranked, order = _ranked(probabilities.gather(1, some))
    # Of tokens as likely as the last one some may be missing: those above it must be enough.
    above = (ranked * (ranked > ranked[:, -1:])).sum(dim=-1)
    chosen = _from_ranked(ranked, some.gather(1, order), top_p, uniforms)
    rest = (above < top_p + 1e-6).nonzero().flatten()
    if rest.numel():
        chosen[rest] = _from_ranked(*_ranked(probabilities[rest]), top_p, uniforms[rest])
    return chosen


def _ranked(probabilities: Tensor) -> tuple[Tensor, Tensor]:
    return probabilities.sort(dim=-1, descending=True, stable=True)


def _from_ranked(ranked: Tensor, tokens: Tensor, top_p: float, uniforms: Tensor) -> Tensor:
    before = ranked.cumsum(dim=-1) - ranked
    ranked = ranked.masked_fill(before >= top_p, 0.0)
    ranked[:, 0] = ranked[:, 0].clamp(min=torch.finfo(ranked.dtype).tiny)
    ladder = ranked.cumsum(dim=-1)
    aim = uniforms.to(ladder).unsqueeze(1) * ladder[:, -1:]
    rank = torch.searchsorted(ladder, aim, right=True).clamp(max=ladder.shape[1] - 1)
    return tokens.gather(1, rank).squeeze(1)
