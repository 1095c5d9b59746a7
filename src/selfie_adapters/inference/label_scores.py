"""How likely labels are under given vectors, and how much of that the vector adds.

log p(label | vector) alone mostly reflects how common the label's words are. The difference from
log p(label | zero vector), what the adapter's bias alone would say, removes that prior.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from selfie_adapters.inference.continuation import Continuation
from selfie_adapters.inference.label_batches import LabelTokens, checked_labels
from selfie_adapters.inference.microbatch import tokens_per_microbatch
from selfie_adapters.inference.slot_rows import after_prompt
from selfie_adapters.model import BoundPrompt, FrozenModel, SharedPrefix
from selfie_adapters.model.limits import check_prompt
from selfie_adapters.model.prefix import shareable
from selfie_adapters.model.suitable import check_model

# Many vectors and few labels per pass: labels of similar length need no padding.
_VECTORS_AT_ONCE = 64


@dataclass(frozen=True)
class CandidateScores:
    """log_probs: [vectors, labels], nats, summed over each label's tokens; tokens: [labels]."""

    log_probs: Tensor
    tokens: Tensor

    def gain(self, zero: CandidateScores) -> Tensor:
        """What each vector adds over the zero vector, in nats per token: [vectors, labels].

        zero: the same labels scored for one soft token, that of the zero vector.
        """
        return (self.log_probs - zero.log_probs) / self.tokens


@dataclass(frozen=True)
class Prefilled:
    """The prompt as the model has read it with some soft tokens, ready for labels to follow.

    first: [soft tokens, vocabulary], log-probabilities of a label's first token.
    """

    read: Continuation
    first: Tensor


@torch.inference_mode()
def prefill(
    model: FrozenModel, prompt: BoundPrompt, prefix: SharedPrefix, soft_tokens: Tensor
) -> Prefilled:
    """Run the prompt once for each of soft_tokens [n, d_model]; `prefix` is the prompt's own."""
    read = after_prompt(model, prompt, prefix, soft_tokens)
    return Prefilled(read, read.logits.float().log_softmax(dim=-1).cpu())


@torch.inference_mode()
def score_candidates(
    model: FrozenModel,
    prompt: BoundPrompt,
    soft_tokens: Tensor,
    labels: Sequence[str],
    progress: Callable[[int], None] = lambda _vectors: None,
) -> CandidateScores:
    """log p(label | soft token) for every pair: soft_tokens [n, d_model], m labels → [n, m].

    The prompt is run once per vector; the labels then share its keys and values, so a pair costs
    only its label's tokens.
    """
    check_model(model)
    check_prompt(model, prompt)
    prompt = shareable(model, prompt)
    return score_tokens(model, prompt, soft_tokens, checked_labels(model, prompt, labels), progress)


@torch.inference_mode()
def score_tokens(
    model: FrozenModel,
    prompt: BoundPrompt,
    soft_tokens: Tensor,
    tokens: LabelTokens,
    progress: Callable[[int], None] = lambda _vectors: None,
) -> CandidateScores:
    """`score_candidates` for labels that are tokenized and checked; prompt: `shareable`."""
    prefix = SharedPrefix(model, prompt.prefix_ids)
    longest_first = torch.argsort(tokens.lengths, descending=True, stable=True)
    at_once = tokens_per_microbatch(model) / float(tokens.lengths.float().mean())  # rows
    result = torch.empty(len(soft_tokens), len(tokens))
    for start in range(0, len(soft_tokens), _VECTORS_AT_ONCE):
        read = prefill(model, prompt, prefix, soft_tokens[start : start + _VECTORS_AT_ONCE])
        vectors = len(read.first)
        rows = torch.arange(vectors)
        for columns in longest_first.split(max(1, int(at_once / vectors))):
            owners = rows.repeat_interleave(len(columns))
            scores = _score_rows(read, owners, tokens, columns.repeat(vectors))
            result[start : start + vectors, columns] = scores.view(vectors, len(columns))
        progress(vectors)
    return CandidateScores(result, tokens.lengths)


def score_generated(
    model: FrozenModel,
    read: Prefilled,
    answers: Sequence[Sequence[int]],
    owners: Tensor | None = None,
) -> list[float]:
    """log p(answers[i] | soft token owners[i] of those read), nats, one number per answer.

    owners: [answers]; None: all belong to the first soft token. Answers are token ids, at least
    one, and may be cut off. An answer that comes twice with one soft token is scored once.
    """
    belongs = [0] * len(answers) if owners is None else owners.tolist()
    pairs = [(owner, tuple(ids)) for owner, ids in zip(belongs, answers, strict=True)]
    different = list(dict.fromkeys(pairs))
    lengths = torch.tensor([len(ids) for _, ids in different], dtype=torch.int64)
    ids = torch.tensor([token for _, row in different for token in row], dtype=torch.int64)
    tokens = LabelTokens(ids, lengths.cumsum(0) - lengths, lengths)
    rows = torch.tensor([owner for owner, _ in different], dtype=torch.int64)
    scores = torch.empty(len(different))
    for part in _parts_of_like_length(lengths, tokens_per_microbatch(model)):
        scores[part] = _score_rows(read, rows[part], tokens, part)
    table = dict(zip(different, scores.tolist(), strict=True))
    return [table[pair] for pair in pairs]


def _parts_of_like_length(lengths: Tensor, tokens: int) -> list[Tensor]:
    """Positions, longest first, cut where a row would be half padding or `tokens` are reached.

    Most labels are a few tokens and some are cut off at thirty: in one batch most would be padding.
    """
    order = torch.argsort(lengths, descending=True, stable=True).tolist()
    steps = (lengths - 1).tolist()  # tokens fed to the model; the last is only a target
    parts: list[list[int]] = []
    for row in order:
        longest = steps[parts[-1][0]] if parts else 0
        full = bool(parts) and longest * (len(parts[-1]) + 1) > tokens
        if full or 2 * steps[row] <= longest or not parts:
            parts.append([])
        parts[-1].append(row)
    return [torch.tensor(part) for part in parts]


@torch.inference_mode()
def _score_rows(read: Prefilled, owners: Tensor, tokens: LabelTokens, chosen: Tensor) -> Tensor:
    """Summed log-probability of label chosen[i] after soft token owners[i]: [rows]."""
    lengths, starts = tokens.lengths[chosen], tokens.starts[chosen]
    result = read.first[owners, tokens.ids[starts]]
    width = int(lengths.max()) - 1
    if not width:
        return result
    place = torch.arange(width)
    inside = place < (lengths - 1).unsqueeze(1)  # [rows, width]
    source = (starts.unsqueeze(1) + place).clamp(max=tokens.ids.numel() - 2)
    targets = tokens.ids[source + 1][inside]
    losses = read.read.branch(owners).losses(tokens.ids[source], inside, targets)
    owner = torch.arange(len(chosen)).unsqueeze(1).expand(-1, width)[inside]
    return result.index_add(0, owner, -losses.cpu())
