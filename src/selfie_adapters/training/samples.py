"""A few labels written while training goes on, to be looked at: greedy, for the same vectors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from selfie_adapters.inference.label_batches import CLOSING_QUOTE
from selfie_adapters.model import BoundPrompt, FrozenModel, injected

_MAX_NEW_TOKENS = 30


@torch.no_grad()
def write_samples(model: FrozenModel, prompt: BoundPrompt, soft_tokens: Tensor) -> list[str]:
    """The model's greedy label for each soft token ([n, d_model]), up to its closing quote."""
    ids = torch.tensor(prompt.ids, device=model.device).expand(len(soft_tokens), -1)
    settings = GenerationConfig(
        max_new_tokens=_MAX_NEW_TOKENS,
        do_sample=False,
        # No cache: every pass sees the whole row, so its placeholders can be counted each time.
        use_cache=False,
        suppress_tokens=[prompt.placeholder_id],
        eos_token_id=prompt.end_id,
        pad_token_id=prompt.end_id,
    )
    sites = len(prompt.sites)
    with injected(model.embedding, soft_tokens.to(model.device), prompt.placeholder_id, sites):
        generate: Any = model.network.generate
        rows = generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=settings
        )
    written = model.tokenizer.batch_decode(rows[:, ids.shape[1] :], skip_special_tokens=True)
    return [text.split(CLOSING_QUOTE)[0].strip() for text in written]
