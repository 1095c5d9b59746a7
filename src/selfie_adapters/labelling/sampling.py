"""Draw next tokens so that a row's text depends on its own seed alone, not on its batch."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


def row_seed(seed: int, *place: int | float) -> int:
    """A 63-bit seed for one row, from the run's seed and the row's place (index, scale, sample)."""
    text = ":".join(repr(part) for part in (seed, *place))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) >> 1


def row_uniforms(seeds: list[int], steps: int) -> Tensor:
    """Uniform numbers in [0, 1): [rows, steps], row i drawn from seeds[i] alone."""
    drawn = torch.empty(len(seeds), steps)
    for i, seed in enumerate(seeds):
        drawn[i] = torch.rand(steps, generator=torch.Generator().manual_seed(seed))
    return drawn


def next_tokens(
    logits: Tensor, temperature: float, top_p: float, uniforms: Tensor
) -> tuple[Tensor, Tensor]:
    """One token a row and its log-probability under the unmodified distribution.

    logits: [rows, vocabulary]; uniforms: [rows] in [0, 1). Temperature 0 takes the most likely
    token. Otherwise: the tokens in falling order of probability, cut where the sum of those before
    reaches top_p (the first always stays), and the one in which `uniforms` falls.
    """
    log_probs = logits.float().log_softmax(dim=-1)
    if temperature == 0:
        chosen = log_probs.argmax(dim=-1)
    else:
        probabilities = (log_probs / temperature).softmax(dim=-1)
        ranked, tokens = probabilities.sort(dim=-1, descending=True, stable=True)
        before = ranked.cumsum(dim=-1) - ranked
        ranked = ranked.masked_fill(before >= top_p, 0.0)
        ranked[:, 0] = ranked[:, 0].clamp(min=torch.finfo(ranked.dtype).tiny)
        ladder = ranked.cumsum(dim=-1)
        aim = uniforms.to(ladder).unsqueeze(1) * ladder[:, -1:]
        place = torch.searchsorted(ladder, aim, right=True).clamp(max=ladder.shape[1] - 1)
        chosen = tokens.gather(1, place).squeeze(1)
    return chosen, log_probs.gather(1, chosen.unsqueeze(1)).squeeze(1)
