"""Draw next tokens so that a row's text depends on its own seed alone, not on its batch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


def row_seed(seed: int, *place: float | str) -> int:
    """A 63-bit seed for one row, from the run's seed and the row's place (index, scale, sample)."""
    text = ":".join(repr(part) for part in (seed, *place))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) >> 1


def row_uniforms(seeds: Sequence[int], steps: int) -> Tensor:
    """Uniform numbers in [0, 1): [rows, steps], row i drawn from seeds[i] alone."""
    drawn = torch.empty(len(seeds), steps)
    for i, seed in enumerate(seeds):
        drawn[i] = torch.rand(steps, generator=torch.Generator().manual_seed(seed))
    return drawn


def penalised(logits: Tensor, written: Tensor, penalty: float) -> Tensor:
    """Logits with the tokens a row has written made less likely: the usual repetition penalty.

    logits: [rows, vocabulary]; written: [rows, tokens so far]. A positive logit is divided by
    `penalty`, a negative one multiplied; 1 changes nothing.
    """
    if penalty == 1 or not written.shape[1]:
        return logits
    seen = logits.gather(1, written)
    return logits.scatter(1, written, torch.where(seen > 0, seen / penalty, seen * penalty))


def next_tokens(
    logits: Tensor,
    temperature: float,
    top_p: float,
    uniforms: Tensor,
    written: Tensor | None = None,
    repetition_penalty: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """One token a row and its log-probability under the unmodified distribution.

    logits: [rows, vocabulary]; uniforms: [rows] in [0, 1); written: [rows, tokens so far], which
    the repetition penalty makes less likely. Temperature 0 takes the most likely
    token. Otherwise: the tokens in falling order of probability, cut where the sum of those before
    reaches top_p (the first always stays), and the one in which `uniforms` falls.
    """
    values = logits.float()
    wanted = values if written is None else penalised(values, written, repetition_penalty)
    if temperature == 0:
        chosen = wanted.argmax(dim=-1)
    else:
        probabilities = (wanted / temperature).softmax(dim=-1)
        chosen = _drawn(probabilities, top_p, uniforms)
    log_probs = values.gather(1, chosen.unsqueeze(1)).squeeze(1) - values.logsumexp(dim=-1)
    return chosen, log_probs


_LIKELY = 256  # tokens of a row that are ranked first; a nucleus is rarely larger


def _drawn(probabilities: Tensor, top_p: float, uniforms: Tensor) -> Tensor:
    """[rows]. Ranking a whole vocabulary costs as much as a small model's step, so the likely
    tokens are ranked alone where they hold the nucleus; the token drawn is the same."""
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
    place = torch.searchsorted(ladder, aim, right=True).clamp(max=ladder.shape[1] - 1)
    return tokens.gather(1, place).squeeze(1)
