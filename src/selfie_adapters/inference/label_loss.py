"""How well the frozen model, given a soft token, says a label: the loss that training moves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from selfie_adapters.adapters import Adapter
from selfie_adapters.errors import DataError
from selfie_adapters.inference.label_batches import (
    LabelBatch,
    LabelTokens,
    build_batch,
    shared_rows,
    split_by_length,
)
from selfie_adapters.inference.label_limits import checked_labels
from selfie_adapters.inference.label_rows import branch_inputs, longest_shared, sharing_is_exact
from selfie_adapters.inference.lm_head import hidden_before, plain_head
from selfie_adapters.inference.microbatch import tokens_a_part
from selfie_adapters.inference.token_loss import head_losses, token_losses
from selfie_adapters.model import BoundPrompt, FrozenModel, SharedPrefix, SoftPrompt, injected
from selfie_adapters.model.blocks import check_embedding_width
from selfie_adapters.model.library import forward, kept_rows
from selfie_adapters.model.limits import check_prompt
from selfie_adapters.model.prefix import shareable


@dataclass(frozen=True)
class PartLoss:
    """Losses of some rows: `per_example` [rows] in nats a token, `clamped` and `tokens` counts."""

    per_example: Tensor
    clamped: Tensor
    tokens: int


class Objective:
    """Label losses under one model and prompt; the shared prefix is computed once, here.

    Where labels come with `vector_of` (equal numbers for labels of one vector, whose soft tokens
    are then equal), the prompt is worked out once for all labels of a vector; losses and gradients
    stay what they are without it.
    """

    def __init__(
        self,
        model: FrozenModel,
        prompt: BoundPrompt,
        label_smoothing: float = 0.0,
        max_loss: float = 100.0,
    ) -> None:
        check_embedding_width(model)
        check_prompt(model, prompt)
        self.model = model
        self.prompt = prompt = shareable(model, prompt)
        self.label_smoothing = label_smoothing
        self.max_loss = max_loss
        self._prefix = SharedPrefix(model, prompt.prefix_ids)
        self._head = plain_head(model)
        self._tokens_a_part = tokens_a_part(model)

    @cached_property
    def _sharing_is_exact(self) -> bool:
        return sharing_is_exact(self.model, self.prompt, self._prefix)

    def parts(
        self, labels: LabelTokens, chosen: Tensor, vector_of: Tensor | None = None
    ) -> list[Tensor]:
        """Positions in `chosen`, cut into parts of like length that fit the machine.

        vector_of: [rows], see the class.
        """
        overhead = len(self.prompt.suffix_ids)
        lengths = labels.lengths[chosen]
        row_of = self._rows(lengths, vector_of)
        return split_by_length(lengths, overhead, self._tokens_a_part, row_of)

    def _rows(self, lengths: Tensor, vector_of: Tensor | None) -> Tensor | None:
        """The row of each label; None: one each (nothing to share, or it would not be exact)."""
        if vector_of is None or torch.unique(vector_of).numel() == vector_of.numel():
            return None
        window = longest_shared(self.model)
        if window is not None and len(self.prompt.ids) + int(lengths.max()) > window:
            return None
        return shared_rows(lengths, vector_of) if self._sharing_is_exact else None

    def part_loss(
        self,
        soft_tokens: Tensor,
        labels: LabelTokens,
        chosen: Tensor,
        vector_of: Tensor | None = None,
    ) -> PartLoss:
        """Losses of the labels `chosen` ([rows]) given one soft token each ([rows, d_model]).

        An example's loss is the mean cross-entropy over its label's tokens, closing quote and end
        token included, each token clamped at `max_loss`. Differentiable in `soft_tokens`: where
        labels share a vector, the gradient of them all arrives at the first one's soft token.
        """
        row_of = self._rows(labels.lengths[chosen], vector_of)
        batch = build_batch(self.prompt, labels, chosen, row_of)
        soft = soft_tokens.to(self.model.device)[batch.first_labels.to(self.model.device)]
        sites = len(self.prompt.sites)
        with injected(self.model.embedding, soft, self.prompt.placeholder_id, sites):
            losses = self._token_losses(batch)
        clamped = (losses.detach() > self.max_loss).sum()
        losses = losses.clamp(max=self.max_loss)
        sums = losses.new_zeros(chosen.numel()).index_add(
            0, batch.target_labels.to(losses.device), losses
        )
        return PartLoss(sums / batch.lengths.to(sums), clamped, batch.targets.numel())

    def _token_losses(self, batch: LabelBatch) -> Tensor:
        cache = self._prefix.for_batch(batch.ids.shape[0])
        keep = batch.keep.to(self.model.device)
        inputs = {
            "input_ids": batch.ids.to(self.model.device),
            "cache": cache,
            "use_cache": cache is not None,
            "keep": keep,
            **branch_inputs(batch, self._prefix.length, self.model),
        }
        head = self._head
        if head is None:
            found = forward(self.model.network, **inputs).logits
        else:
            found = hidden_before(head, self.model, **inputs)
        found = kept_rows(found, keep)
        targets = batch.targets.to(found.device)
        predictors = batch.predictors.to(found.device)
        if head is None:
            return token_losses(found, targets, self.label_smoothing, predictors)
        return head_losses(found, head.weight, head.bias, targets, self.label_smoothing, predictors)

    def all_losses(
        self,
        soft_tokens: Tensor,
        labels: LabelTokens,
        chosen: Tensor,
        vector_of: Tensor | None = None,
    ) -> PartLoss:
        """`part_loss` over any number of rows, part by part, in the order of `chosen`."""
        pieces = []
        parts = self.parts(labels, chosen, vector_of)
        for part in parts:
            where = part.to(soft_tokens.device)
            same = None if vector_of is None else vector_of[part]
            pieces.append(self.part_loss(soft_tokens[where], labels, chosen[part], same))
        back = torch.argsort(torch.cat(parts)).to(pieces[0].per_example.device)
        per_example = torch.cat([piece.per_example for piece in pieces])[back]
        clamped = torch.stack([piece.clamped for piece in pieces]).sum()
        return PartLoss(per_example, clamped, sum(piece.tokens for piece in pieces))


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
    Raises DataError if there are not as many labels as vectors, or if a label is empty or one that
    the model cannot take; PromptError for such a prompt.
    """
    if len(labels) != len(vectors):
        raise DataError(f"{len(labels)} labels for {len(vectors)} vectors. One label each.")
    if eos_token is not None:
        prompt = replace(prompt, end=eos_token)
    bound = prompt.bind(model.tokenizer)
    objective = Objective(model, bound, label_smoothing, max_loss)
    tokens = checked_labels(model, bound, labels)
    soft = adapter(vectors)
    return objective.all_losses(soft, tokens, torch.arange(len(labels))).per_example
