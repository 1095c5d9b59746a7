"""How likely the frozen model finds a label, given a soft token: the loss that training minimizes.

Several labels of one vector can share a row: the prompt once, then each label on a branch of its
own. Each label sees the prompt and itself, at the positions that it would have alone, so its loss
is what it would be alone. That needs a model that takes its mask and positions as they are given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from selfie_adapters.adapters import Adapter
from selfie_adapters.errors import ConfigError, DataError
from selfie_adapters.inference.label_batches import (
    LabelBatch,
    LabelTokens,
    build_batch,
    checked_labels,
)
from selfie_adapters.inference.lm_head import head_losses, lm_head, token_losses
from selfie_adapters.inference.microbatch import (
    LABEL_TOKENS_PER_ROW,
    shared_rows,
    split_by_length,
    tokens_per_microbatch,
)
from selfie_adapters.inference.packed_rows import PackedRows, fits_window, packing_pays
from selfie_adapters.model import BoundPrompt, FrozenModel, SharedPrefix, SoftPrompt, injected
from selfie_adapters.model.attention import takes_any_mask
from selfie_adapters.model.cache_use import UNSUPPORTED, cache_use, logit_tolerance
from selfie_adapters.model.library import forward, kept_rows
from selfie_adapters.model.limits import check_prompt
from selfie_adapters.model.packing import to_device
from selfie_adapters.model.prefix import shareable
from selfie_adapters.model.suitable import check_model


@dataclass(frozen=True)
class MicrobatchLoss:
    """Losses of some rows: `per_example` [rows], nats per token; `clamped` and `tokens` counts."""

    per_example: Tensor
    clamped: Tensor
    tokens: int


class Objective:
    """Label losses under one model and prompt; the shared prefix is computed once, here.

    Where labels come with `vector_of` (equal numbers for labels of one vector, whose soft tokens
    are then equal), the prompt is computed once for all labels of a vector; losses and gradients
    are the same as without it.
    """

    def __init__(
        self,
        model: FrozenModel,
        prompt: BoundPrompt,
        label_smoothing: float = 0.0,
        max_loss: float = 100.0,
    ) -> None:
        check_model(model)
        check_prompt(model, prompt)
        self.model = model
        self.prompt = prompt = shareable(model, prompt)
        self.label_smoothing = label_smoothing
        self.max_loss = max_loss
        self._prefix = SharedPrefix(model, prompt.prefix_ids)
        self._head = lm_head(model)
        self._tokens_per_microbatch = tokens_per_microbatch(model)
        self._packed = None
        if packing_pays(model):
            self._packed = PackedRows(model, prompt, self._prefix, self._head)

    @cached_property
    def _sharing_is_exact(self) -> bool:
        return sharing_is_exact(self.model, self.prompt, self._prefix)

    def microbatches(
        self, labels: LabelTokens, chosen: Tensor, vector_of: Tensor | None = None
    ) -> list[Tensor]:
        """Positions in `chosen`, cut into micro-batches of similar length that fit the machine.

        vector_of: [rows], see the class.
        """
        overhead = len(self.prompt.suffix_ids)
        lengths = labels.lengths[chosen]
        row_of = self._rows(lengths, vector_of)
        padded = self._packed is None
        return split_by_length(lengths, overhead, self._tokens_per_microbatch, row_of, padded)

    def _rows(self, lengths: Tensor, vector_of: Tensor | None) -> Tensor | None:
        """The row of each label; None: one each (nothing to share, or it would not be exact)."""
        if vector_of is None or torch.unique(vector_of).numel() == vector_of.numel():
            return None
        if not fits_window(self.model, len(self.prompt.ids) + int(lengths.max())):
            return None
        return shared_rows(lengths, vector_of) if self._sharing_is_exact else None

    def microbatch_loss(
        self,
        soft_tokens: Tensor,
        labels: LabelTokens,
        chosen: Tensor,
        vector_of: Tensor | None = None,
    ) -> MicrobatchLoss:
        """Losses of the labels `chosen` ([rows]) given one soft token each ([rows, d_model]).

        An example's loss is the mean cross-entropy over its label's tokens, closing quote and end
        token included, each token clamped at `max_loss`. Differentiable in `soft_tokens`: where
        labels share a vector, the gradient of them all arrives at the first one's soft token.
        """
        row_of = self._rows(labels.lengths[chosen], vector_of)
        batch = build_batch(self.prompt, labels, chosen, row_of)
        soft = soft_tokens.to(self.model.device)
        soft = soft.index_select(0, to_device(batch.first_labels, soft.device))
        losses = self._token_losses(batch, soft)
        clamped = (losses.detach() > self.max_loss).sum()
        losses = losses.clamp(max=self.max_loss)
        sums = losses.new_zeros(chosen.numel()).index_add(
            0, to_device(batch.target_labels, losses.device), losses
        )
        lengths = to_device(batch.lengths, losses.device)
        return MicrobatchLoss(sums / lengths, clamped, batch.targets.numel())

    def _token_losses(self, batch: LabelBatch, soft: Tensor) -> Tensor:
        """soft: [rows, d_model], the soft token of each row, on the model's device."""
        linear = self._head.linear
        if self._packed is not None and fits_window(
            self.model, len(self.prompt.ids) + int(batch.lengths.max())
        ):
            found = self._packed.found(batch, soft)
        else:
            found = self._padded(batch, soft)
        if linear is not None:
            found = found.to(linear.weight.device)
        targets = to_device(batch.targets, found.device)
        predictors = to_device(batch.predictors, found.device)
        if linear is None:
            return token_losses(found, targets, self.label_smoothing, predictors)
        return head_losses(
            found, linear.weight, linear.bias, targets, self.label_smoothing, predictors
        )

    def _padded(self, batch: LabelBatch, soft: Tensor) -> Tensor:
        """As `PackedRows.found`, in padded rows over a cache."""
        cache = self._prefix.for_batch(batch.ids.shape[0])
        inputs = {
            "keep": batch.keep.to(self.model.device),
            "use_cache": cache is not None,
            "cache": cache,
            "input_ids": batch.ids.to(self.model.device),
            **branch_inputs(batch, self._prefix.length, self.model),
        }
        sites = len(self.prompt.sites)
        read = self._head.logits if self._head.linear is None else self._head.hidden
        with injected(self.model.embedding, soft, self.prompt.placeholder_id, sites):
            return read(**inputs)[0]

    def all_losses(
        self,
        soft_tokens: Tensor,
        labels: LabelTokens,
        chosen: Tensor,
        vector_of: Tensor | None = None,
    ) -> MicrobatchLoss:
        """`microbatch_loss` over any number of rows, in the order of `chosen`."""
        pieces = []
        parts = self.microbatches(labels, chosen, vector_of)
        for part in parts:
            where = part.to(soft_tokens.device)
            same = None if vector_of is None else vector_of[part]
            pieces.append(self.microbatch_loss(soft_tokens[where], labels, chosen[part], same))
        back = torch.argsort(torch.cat(parts)).to(pieces[0].per_example.device)
        per_example = torch.cat([piece.per_example for piece in pieces])[back]
        clamped = torch.stack([piece.clamped for piece in pieces]).sum()
        return MicrobatchLoss(per_example, clamped, sum(piece.tokens for piece in pieces))


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

    vectors: [n, d_model]; labels: n strings; eos_token: the token that ends the answer, None for
    the prompt's own. Each number is the mean cross-entropy in nats over the label's tokens, closing
    quote and end token included, each token clamped at `max_loss`.
    Raises DataError if there are not as many labels as vectors, none, or if a label is empty or one
    that the model cannot take; PromptError for such a prompt; ConfigError for a smoothing outside
    of [0, 1) or a clamp that is not positive.
    """
    if not 0 <= label_smoothing < 1:
        raise ConfigError(f"label_smoothing is {label_smoothing}; from 0 to below 1 is expected.")
    if not max_loss > 0:
        raise ConfigError(f"max_loss is {max_loss}; a positive number is expected.")
    if isinstance(labels, str):
        raise DataError(f"labels is the string {labels!r:.80}; a list of strings is expected.")
    if not len(labels) or len(labels) != len(vectors):
        raise DataError(
            f"{len(labels)} labels for {len(vectors)} vectors. One label per vector is expected."
        )
    if eos_token is not None:
        prompt = replace(prompt, end=eos_token)
    bound = prompt.bind(model.tokenizer)
    objective = Objective(model, bound, label_smoothing, max_loss)
    tokens = checked_labels(model, bound, labels)
    soft = adapter(vectors)
    return objective.all_losses(soft, tokens, torch.arange(len(labels))).per_example


def branch_inputs(batch: LabelBatch, prefix_length: int, model: FrozenModel) -> dict[str, Any]:
    """`attention_mask` and `position_ids` for rows of several labels; {} for rows of one."""
    if batch.visible is None:
        return {}
    rows, width = batch.ids.shape
    seen = torch.cat([torch.ones(rows, width, prefix_length, dtype=torch.bool), batch.visible], -1)
    mask = torch.zeros(seen.shape, dtype=model.dtype)
    mask.masked_fill_(~seen, torch.finfo(model.dtype).min)
    return {
        "attention_mask": mask.unsqueeze(1).to(model.device),
        "position_ids": (batch.positions + prefix_length).to(model.device),
    }


@torch.no_grad()
def sharing_is_exact(model: FrozenModel, prompt: BoundPrompt, prefix: SharedPrefix) -> bool:
    """Whether labels in one row get the logits that each gets alone. Two short passes.

    The two that are compared are as far apart in the row as labels come: some models hide what is
    far away in the row, whatever the mask shows (GPT-Neo). States of recurrent models and
    convolutions pass from label to label, at times by less than rounding: they never share.
    """
    if not takes_any_mask(model.network) or not cache_use(model).branches:
        return False
    # Any tokens do; the placeholder keeps its own embedding.
    words = torch.tensor([i for i in prompt.ids if i != prompt.placeholder_id])[-6:]
    between = words.repeat(LABEL_TOKENS_PER_ROW // words.numel())
    ids = torch.cat([words, between, words.flip(0)])
    lengths = torch.tensor([words.numel(), between.numel(), words.numel()])
    labels = LabelTokens(ids, lengths.cumsum(0) - lengths, lengths)
    alone = _logits(model, build_batch(prompt, labels, torch.tensor([0, 2])), prefix)
    row = build_batch(prompt, labels, torch.arange(3), torch.zeros(3, dtype=torch.int64))
    try:
        together = _logits(model, row, prefix, row.target_labels != 1)
    except UNSUPPORTED:  # no such inputs, or not of this shape
        return False
    return bool((alone - together).abs().max() <= logit_tolerance(model, alone))


def _logits(
    model: FrozenModel, batch: LabelBatch, prefix: SharedPrefix, chosen: Tensor | None = None
) -> Tensor:
    """Logits before each label token, [label tokens, vocabulary], float32.

    chosen: bool, [label tokens], those whose logits are returned; None: all.
    """
    predictors = batch.predictors if chosen is None else batch.predictors[chosen]
    at = batch.keep.flatten().nonzero().squeeze(1)[predictors]
    keep = torch.zeros_like(batch.keep)
    keep.view(-1)[at] = True
    cache = prefix.for_batch(batch.ids.shape[0])
    keep = keep.to(model.device)
    logits = forward(
        model.network,
        input_ids=batch.ids.to(model.device),
        cache=cache,
        use_cache=cache is not None,
        keep=keep,
        **branch_inputs(batch, prefix.length, model),
    ).logits
    rank = keep.flatten().cumsum(0) - 1
    return kept_rows(logits, keep)[rank[at.to(rank.device)].to(logits.device)].float()
