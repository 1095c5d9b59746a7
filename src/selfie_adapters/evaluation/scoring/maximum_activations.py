"""Highest activations of latents in conversations: one forward pass each, up to the SAE's layer.

What all conversations of a call begin with (the template's own words, a system turn) is read once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from selfie_adapters.errors import DataError
from selfie_adapters.evaluation.scoring.conversations import ChatTokens
from selfie_adapters.model import FrozenModel, SharedPrefix, capture
from selfie_adapters.model.prefix import common_length
from selfie_adapters.sources.sae.encoder import LatentEncoder


@dataclass(frozen=True)
class MaximumActivations:
    """The largest activation of each latent in each conversation: [conversations, latents].

    anywhere: over all tokens after position 0, template and special ones too, as published.
    content: over the tokens of the turns' content. 0 where there is no such token. own: of each
    conversation the activations of its first latent at every token, position 0 included.
    """

    anywhere: Tensor
    content: Tensor
    own: list[list[float]]


def check_width(model: FrozenModel, encoder: LatentEncoder) -> None:
    """Raise DataError unless the SAE reads vectors of the model's width and has its layer."""
    if encoder.d_in != model.d_model:
        raise DataError(
            f"the SAE reads vectors of width {encoder.d_in}; {model.name} has d_model "
            f"{model.d_model}. Use the model the SAE was trained on ({encoder.model})."
        )
    if encoder.layer >= model.n_layers:
        raise DataError(
            f"the SAE reads layer {encoder.layer}; {model.name} has layers 0 to "
            f"{model.n_layers - 1}. Use the model the SAE was trained on ({encoder.model})."
        )


def maximum_activations(
    model: FrozenModel,
    encoder: LatentEncoder,
    conversations: Sequence[ChatTokens],
    latents: Tensor,
    batch_size: int = 32,
) -> MaximumActivations:
    """MaximumActivations of `latents` ([conversations, m], each row its own) in the conversations.

    Raises DataError for an SAE of another width.
    """
    check_width(model, encoder)
    anywhere = torch.zeros(latents.shape)
    content = torch.zeros(latents.shape)
    own: list[list[float]] = [[] for _ in conversations]
    if not conversations:
        return MaximumActivations(anywhere, content, own)
    prefix = _Prefix(model, encoder, conversations)
    order = sorted(range(len(conversations)), key=lambda i: len(conversations[i].ids), reverse=True)
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        suffixes = [conversations[i].ids[prefix.length :] for i in rows]
        width = max(map(len, suffixes))
        ids = torch.zeros(len(rows), width, dtype=torch.int64)
        real = torch.zeros(len(rows), width, dtype=torch.bool)
        spoken = torch.zeros(len(rows), width, dtype=torch.bool)
        for row, (i, suffix) in enumerate(zip(rows, suffixes, strict=True)):
            ids[row, : len(suffix)] = torch.tensor(suffix)
            real[row, : len(suffix)] = True
            spoken[row, : len(suffix)] = torch.tensor(conversations[i].content[prefix.length :])
        mask = torch.cat([torch.ones(len(rows), prefix.length), real], dim=1).long()
        states = capture(
            model, ids, [encoder.layer], None, mask, prefix.shared.for_batch(len(rows))
        )[:, 0]
        found = encoder.encode(states, latents[rows]).cpu()
        for row, (i, suffix) in enumerate(zip(rows, suffixes, strict=True)):
            own[i] = prefix.activations(int(latents[i, 0])) + found[row, : len(suffix), 0].tolist()
        if not prefix.length:
            real[:, 0] = False  # position 0 does not count as published
        anywhere[rows] = torch.maximum(_largest(found, real), prefix.maxima(latents[rows]))
        content[rows] = _largest(found, spoken)
    return MaximumActivations(anywhere, content, own)


def _largest(found: Tensor, where: Tensor) -> Tensor:
    """found: [rows, tokens, m], where: [rows, tokens] → [rows, m]"""
    return (found * where.unsqueeze(-1)).amax(dim=1)


class _Prefix:
    """Template tokens that all conversations begin with, and their activations by latent."""

    def __init__(
        self, model: FrozenModel, encoder: LatentEncoder, conversations: Sequence[ChatTokens]
    ) -> None:
        before = min(_before_content(one) for one in conversations)
        length = common_length([one.ids for one in conversations], before)
        self.shared = SharedPrefix(model, conversations[0].ids[:length])
        self.length = self.shared.length
        ids = conversations[0].ids[: self.length]
        self._found: dict[int, list[float]] = {}
        if self.length:
            states = capture(model, torch.tensor([ids]), [encoder.layer])[:, 0]
            found = encoder.encode(states, torch.tensor([encoder.latents])).cpu()[0]
            self._found = dict(zip(encoder.latents, found.T.tolist(), strict=True))

    def activations(self, latent: int) -> list[float]:
        """Of one latent at each of the shared tokens."""
        return self._found.get(latent, [])

    def maxima(self, latents: Tensor) -> Tensor:
        """The largest after position 0, in the shape of `latents`; 0 where there is none."""
        flat = [max(self.activations(i)[1:], default=0.0) for i in latents.flatten().tolist()]
        return torch.tensor(flat).reshape(latents.shape)


def _before_content(one: ChatTokens) -> int:
    """Tokens before the first one of content; one token at least is left for the batch."""
    first = next((i for i, spoken in enumerate(one.content) if spoken), len(one.ids))
    return min(first, len(one.ids) - 1)
