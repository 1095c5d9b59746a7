"""Soft tokens go in at the output of the embedding layer, keyed on the placeholder and counted.

Why there: `input_ids` stay real, so architectures that scale embeddings inside the module
(Gemma), after it (Granite) or look ids up again (Gemma 4) all see what they expect.
See docs/injection.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from selfie_adapters.errors import PromptError


def replace_rows(
    embedded: Tensor, ids: Tensor, soft_tokens: Tensor, placeholder_id: int, sites: int
) -> Tensor:
    """Put row i's soft token at every placeholder of row i.

    embedded: [batch, tokens, d_model], ids: [batch, tokens], soft_tokens: [batch, d_model].
    Raises PromptError unless every row has exactly `sites` placeholders.
    """
    at = ids == placeholder_id
    found = at.sum(dim=1)
    if not bool((found == sites).all()):
        row = int((found != sites).nonzero()[0])
        raise PromptError(
            f"row {row} of the batch: {int(found[row])} placeholder tokens (id {placeholder_id}) "
            f"where the prompt has {sites}. Is the placeholder part of a label or of other text?"
        )
    if soft_tokens.shape != (ids.shape[0], embedded.shape[-1]):
        raise PromptError(
            f"soft tokens of shape {tuple(soft_tokens.shape)} for a batch of {ids.shape[0]} rows "
            f"and d_model {embedded.shape[-1]}. One soft token a row is expected."
        )
    soft = soft_tokens.to(embedded).unsqueeze(1)
    return torch.where(at.unsqueeze(-1), soft, embedded)


@contextmanager
def injected(
    embedding: nn.Module, soft_tokens: Tensor, placeholder_id: int, sites: int
) -> Iterator[None]:
    """While open, each forward pass sees `soft_tokens` ([batch, d_model]) at the placeholders.

    `sites` is how many placeholders each row of the ids of that pass must have. Differentiable in
    `soft_tokens`. The hook must have run when the block ends: an embedding that was never called
    is an error, not a silent no-op.
    """
    calls = 0

    def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor):
        nonlocal calls
        calls += 1
        ids = args[0] if args else kwargs["input"]
        return replace_rows(out, ids, soft_tokens, placeholder_id, sites)

    handle = embedding.register_forward_hook(hook, with_kwargs=True)
    try:
        yield
        if not calls:
            raise PromptError(
                f"{type(embedding).__name__} was not called, so no soft token went in. "
                "Pass input_ids, not inputs_embeds."
            )
    finally:
        handle.remove()
