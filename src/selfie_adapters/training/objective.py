"""How well the frozen model, given a soft token, says a label: the loss that training moves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import transformers
from packaging.version import Version
from torch import Tensor

from selfie_adapters.adapters import Adapter
from selfie_adapters.errors import DataError
from selfie_adapters.model import BoundPrompt, FrozenModel, SharedPrefix, SoftPrompt, injected
from selfie_adapters.training.batches import (
    LabelTokens,
    build_batch,
    split_by_length,
    tokenise_labels,
    tokens_a_part,
)
from selfie_adapters.training.token_loss import token_losses

# From 5.21 on, `logits_to_keep` takes a mask over rows and columns; before, only whole columns.
MASK_OF_LOGITS = Version(transformers.__version__) >= Version("5.21")


@dataclass(frozen=True)
class PartLoss:
    """Losses of some rows: `per_example` [rows] in nats a token, `clamped` and `tokens` counts."""

    per_example: Tensor
    clamped: Tensor
    tokens: int


class Objective:
    """Label losses under one model and prompt; the shared prefix is computed once, here."""

    def __init__(
        self,
        model: FrozenModel,
        prompt: BoundPrompt,
        label_smoothing: float = 0.0,
        max_loss: float = 100.0,
    ) -> None:
        self.model = model
        self.prompt = prompt
        self.label_smoothing = label_smoothing
        self.max_loss = max_loss
        self._prefix = SharedPrefix(model, prompt.prefix_ids)

    def parts(self, labels: LabelTokens, chosen: Tensor) -> list[Tensor]:
        """Positions in `chosen`, cut into parts of like length that fit the machine."""
        overhead = len(self.prompt.suffix_ids)
        return split_by_length(labels.lengths[chosen], overhead, tokens_a_part(self.model.device))

    def part_loss(self, soft_tokens: Tensor, labels: LabelTokens, chosen: Tensor) -> PartLoss:
        """Losses of the labels `chosen` ([rows]) given one soft token each ([rows, d_model]).

        An example's loss is the mean cross-entropy over its label's tokens, closing quote and end
        token included, each token clamped at `max_loss`. Differentiable in `soft_tokens`.
        """
        device = self.model.device
        batch = build_batch(self.prompt, labels, chosen)
        sites = len(self.prompt.sites)
        with injected(
            self.model.embedding, soft_tokens.to(device), self.prompt.placeholder_id, sites
        ):
            logits = label_logits(self.model, batch.ids, batch.keep, self._prefix)
        losses = token_losses(logits, batch.targets.to(logits.device), self.label_smoothing)
        clamped = (losses.detach() > self.max_loss).sum()
        losses = losses.clamp(max=self.max_loss)
        sums = losses.new_zeros(chosen.numel()).index_add(
            0, batch.target_rows.to(losses.device), losses
        )
        return PartLoss(sums / batch.lengths.to(sums), clamped, batch.targets.numel())

    def all_losses(self, soft_tokens: Tensor, labels: LabelTokens, chosen: Tensor) -> PartLoss:
        """`part_loss` over any number of rows, part by part, in the order of `chosen`."""
        pieces = []
        parts = self.parts(labels, chosen)
        for part in parts:
            where = part.to(soft_tokens.device)
            pieces.append(self.part_loss(soft_tokens[where], labels, chosen[part]))
        back = torch.argsort(torch.cat(parts)).to(pieces[0].per_example.device)
        per_example = torch.cat([piece.per_example for piece in pieces])[back]
        clamped = torch.stack([piece.clamped for piece in pieces]).sum()
        return PartLoss(per_example, clamped, sum(piece.tokens for piece in pieces))


def label_logits(model: FrozenModel, ids: Tensor, keep: Tensor, prefix: SharedPrefix) -> Tensor:
    """Logits at the positions `keep` only, [kept, vocabulary], in row-major order."""
    cache = prefix.for_batch(ids.shape[0])
    keep = keep.to(model.device)
    columns = None if MASK_OF_LOGITS else keep.any(dim=0).nonzero().squeeze(1)
    logits = model.network(
        input_ids=ids.to(model.device),
        past_key_values=cache,
        use_cache=cache is not None,
        logits_to_keep=keep if columns is None else columns,
    ).logits
    if columns is not None:
        logits = logits[keep[:, columns].to(logits.device)]
    return logits.reshape(-1, logits.shape[-1])


def label_losses(
    model: FrozenModel,
    prompt: SoftPrompt,
    adapter: Adapter,
    vectors: Tensor,
    labels: Sequence[str],
    eos_token: str | None = None,
    label_smoothing: float = 0.0,
    max_loss: float = 100.0,
) -> Tensor:
    """Loss of each label given its vector: [n], differentiable in the adapter.

    vectors: [n, d_model]; labels: n texts; eos_token: the token that ends the answer, None for the
    prompt's own. Each number is the mean cross-entropy in nats over the label's tokens, closing
    quote and end token included, each token clamped at `max_loss`.
    Raises DataError if there are not as many labels as vectors, or a label is empty.
    """
    if len(labels) != len(vectors):
        raise DataError(f"{len(labels)} labels for {len(vectors)} vectors. One label each.")
    if eos_token is not None:
        prompt = replace(prompt, end=eos_token)
    bound = prompt.bind(model.tokenizer)
    objective = Objective(model, bound, label_smoothing, max_loss)
    tokens = tokenise_labels(model.tokenizer, labels, bound.end_id)
    soft = adapter.transform(vectors)
    return objective.all_losses(soft, tokens, torch.arange(len(labels))).per_example
