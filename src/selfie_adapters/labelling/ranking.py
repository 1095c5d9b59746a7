"""How likely given labels are under given vectors, and how much of that the vector adds.

log p(label | vector) alone mostly says how common the label's words are. The difference from
log p(label | zero vector), what the adapter's bias alone would say, removes that prior.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from selfie_adapters.model import BoundPrompt, FrozenModel, SharedPrefix, injected
from selfie_adapters.training.batches import LabelTokens, tokenise_labels
from selfie_adapters.training.token_loss import token_losses

_ROWS_AT_ONCE = 256
_VECTORS_AT_ONCE = 64  # many vectors and few labels a pass: labels of like length need no padding


@dataclass(frozen=True)
class CandidateScores:
    """log_probs: [vectors, labels], nats, summed over each label's tokens; tokens: [labels]."""

    log_probs: Tensor
    tokens: Tensor

    def per_token(self) -> Tensor:
        """Mean log-likelihood a token: [vectors, labels]."""
        return self.log_probs / self.tokens

    def gain(self, zero: CandidateScores) -> Tensor:
        """What each vector adds over the zero vector, in nats a token: [vectors, labels].

        zero: the same labels scored for one soft token, that of the zero vector.
        """
        return (self.log_probs - zero.log_probs) / self.tokens


@torch.inference_mode()
def score_candidates(
    model: FrozenModel,
    prompt: BoundPrompt,
    soft_tokens: Tensor,
    labels: Sequence[str],
    progress: Callable[[int], None] = lambda _vectors: None,
) -> CandidateScores:
    """log p(label | soft token) for every pair: soft_tokens [n, d_model], m labels → [n, m].

    The prompt is run once a vector; the labels then share its keys and values, so a pair costs
    only its label's tokens.
    """
    tokens = tokenise_labels(model.tokenizer, labels, prompt.end_id)
    prefix = SharedPrefix(model, prompt.prefix_ids)
    longest_first = torch.argsort(tokens.lengths, descending=True, stable=True)
    result = torch.empty(len(soft_tokens), len(labels))
    for start in range(0, len(soft_tokens), _VECTORS_AT_ONCE):
        soft = soft_tokens[start : start + _VECTORS_AT_ONCE].to(model.device)
        suffix = torch.tensor(prompt.suffix_ids, device=model.device).expand(len(soft), -1)
        with injected(model.embedding, soft, prompt.placeholder_id, len(prompt.sites)):
            read = model.network(
                input_ids=suffix,
                past_key_values=prefix.for_batch(len(soft)),
                use_cache=True,
                logits_to_keep=1,
            )
        first = read.logits[:, -1].float().log_softmax(dim=-1).cpu()
        columns_at_once = max(1, _ROWS_AT_ONCE // len(soft))
        for columns in longest_first.split(columns_at_once):
            rest = _rest_of_labels(model, read.past_key_values, len(soft), tokens, columns)
            opening = first[:, tokens.ids[tokens.starts[columns]]]
            result[start : start + len(soft), columns] = opening + rest
        progress(len(soft))
    return CandidateScores(result, tokens.lengths)


def _rest_of_labels(
    model: FrozenModel, cache: object, vectors: int, tokens: LabelTokens, columns: Tensor
) -> Tensor:
    """Summed log-probability of the labels' tokens after their first: [vectors, columns]."""
    lengths = tokens.lengths[columns]
    width = int(lengths.max()) - 1
    place = torch.arange(width)
    source = (tokens.starts[columns].unsqueeze(1) + place).clamp(max=tokens.ids.numel() - 2)
    inside = place < (lengths - 1).unsqueeze(1)  # [columns, width]
    inputs = tokens.ids[source].repeat(vectors, 1).to(model.device)
    targets = tokens.ids[source + 1][inside].repeat(vectors)
    keep = inside.repeat(vectors, 1).to(model.device)
    branches = copy.deepcopy(cache)
    rows = torch.arange(vectors, device=model.device).repeat_interleave(len(columns))
    branches.batch_select_indices(rows)  # type: ignore[attr-defined]
    logits = model.network(
        input_ids=inputs, past_key_values=branches, use_cache=True, logits_to_keep=keep
    ).logits
    losses = token_losses(logits.reshape(-1, logits.shape[-1]), targets.to(logits.device))
    owner = torch.arange(len(inputs)).unsqueeze(1).expand(-1, width)[keep.cpu()]
    sums = torch.zeros(len(inputs)).index_add_(0, owner, losses.cpu())
    return -sums.view(vectors, len(columns))
