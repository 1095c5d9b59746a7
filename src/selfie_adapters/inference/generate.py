"""The one generation loop: rows that the model has read in, token ids and log-probabilities out.

Rows leave the batch when they end. A row's tokens are sampled with its own seed alone, whatever
else is in the batch (dtypes below float32 may round differently in batches of another size).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypedDict

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from selfie_adapters.config.shared import Sampling
from selfie_adapters.inference.continuation import Continuation
from selfie_adapters.inference.label_batches import CLOSING_QUOTE
from selfie_adapters.inference.slot_rows import after_prompt
from selfie_adapters.model import BoundPrompt, FrozenModel, SharedPrefix

# Looking at which rows have ended makes a GPU wait for the CPU. Rows that end between two looks
# are run on for a few tokens, which are dropped.
_STEPS_BETWEEN_LOOKS = {"cpu": 1}
_USUAL_STEPS_BETWEEN_LOOKS = 4
_LIKELY = 256  # tokens of a row that are ranked first; a nucleus is rarely larger


class SamplingOptions(TypedDict, total=False):
    """The fields of `Sampling` as keyword arguments."""

    temperature: float
    top_p: float
    repetition_penalty: float
    max_new_tokens: int
    stop_at_quote: bool


@dataclass
class Generated:
    """Token ids of one answer, the one that ended it included; their summed log-probability in
    nats. ended: whether such a token came, rather than the limit of tokens."""

    ids: list[int]
    log_prob: float = 0.0
    ended: bool = False


@torch.inference_mode()
def generate(
    read: Continuation,
    seeds: Sequence[int],
    sampling: Sampling,
    ends: Tensor,
    limits: Sequence[int] | None = None,
) -> Iterator[tuple[int, Generated]]:
    """Every row of `read` with its answer, as soon as the row is seen to have ended.

    read: the rows' prompts, read; it is used up. seeds: one per row. ends: [vocabulary] bool, the
    tokens that end an answer. limits: tokens that each row may have; None: what `sampling` states.
    """
    limits = [sampling.max_new_tokens] * len(seeds) if limits is None else limits
    if not seeds:
        return
    device, steps = ends.device, max(limits)
    between = _STEPS_BETWEEN_LOOKS.get(device.type, _USUAL_STEPS_BETWEEN_LOOKS)
    read.make_room(steps)
    uniforms = row_uniforms(seeds, steps).to(device)
    limit = torch.tensor(limits, device=device)
    alive = torch.arange(len(seeds), device=device)
    tokens = torch.empty(len(seeds), 0, dtype=torch.int64, device=device)
    log_probs = torch.empty(len(seeds), 0, device=device)
    over = torch.zeros(len(seeds), dtype=torch.bool, device=device)
    for step in range(steps):
        logits = read.logits.to(device)
        new, new_log_probs = next_tokens(logits, sampling, uniforms[alive, step], tokens)
        tokens = torch.cat([tokens, new.unsqueeze(1)], dim=1)
        log_probs = torch.cat([log_probs, new_log_probs.unsqueeze(1)], dim=1)
        over = over | ends[new] | (limit[alive] == step + 1)
        last = step + 1 == steps
        if last or (step + 1) % between == 0:
            gone = over.nonzero().flatten()
            yield from _answers(alive[gone], tokens[gone], log_probs[gone], ends, limits)
            if gone.numel() == alive.numel():
                return
            if gone.numel():
                going = (~over).nonzero().flatten()
                read.select(going)
                alive, tokens, log_probs = alive[going], tokens[going], log_probs[going]
                new, over = new[going], over[going]
        read.read(new)


def _answers(
    rows: Tensor, tokens: Tensor, log_probs: Tensor, ends: Tensor, limits: Sequence[int]
) -> Iterator[tuple[int, Generated]]:
    """Answers of `rows`, each cut behind its first ending token or at its limit."""
    ending = ends[tokens].tolist()
    table = zip(rows.tolist(), tokens.tolist(), log_probs.tolist(), ending, strict=True)
    for row, ids, gained, ended in table:
        length = limits[row]
        if True in ended[:length]:
            length = ended.index(True) + 1
        summed = 0.0
        for log_prob in gained[:length]:
            summed += log_prob
        yield row, Generated(ids[:length], summed, ended[length - 1])


def generate_labels(
    model: FrozenModel,
    prompt: BoundPrompt,
    prefix: SharedPrefix,
    soft_tokens: Tensor,
    seeds: Sequence[int],
    sampling: Sampling,
    quotes: Tensor,
) -> list[Generated]:
    """The model's answer to `prompt` about each of soft_tokens [n, d_model], one seed each.

    prompt: as `shareable` returns it; prefix: its own; quotes: the model's `quote_tokens`.
    """
    ends = quotes.clone() if sampling.stop_at_quote else torch.zeros_like(quotes)
    ends[prompt.end_id] = True
    read = after_prompt(model, prompt, prefix, soft_tokens)
    answers = dict(generate(read, seeds, sampling, ends))
    return [answers[row] for row in range(len(seeds))]


def answer_text(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """All that was generated but special tokens, with whitespace as the tokens have it."""
    text = tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return str(text)


def label_in(text: str) -> str:
    """The label in an answer: what comes before its closing quote, whitespace around it removed."""
    return text.split(CLOSING_QUOTE, 1)[0].strip()


def quote_tokens(model: FrozenModel) -> Tensor:
    """[vocabulary] bool: tokens whose string contains a double quote, which closes the label."""
    closes = torch.zeros(model.vocab_size, dtype=torch.bool, device=model.device)
    # Byte-level and SentencePiece vocabularies both keep ASCII marks as they are.
    ids = [i for piece, i in model.tokenizer.get_vocab().items() if CLOSING_QUOTE in piece]
    special = set(model.tokenizer.all_special_ids)
    closes[[i for i in ids if i not in special and i < closes.numel()]] = True
    return closes


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
