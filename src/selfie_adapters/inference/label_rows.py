"""Several labels of one vector in one row: the prompt once, then each label on a branch of its own.

Every label sees the prompt and itself, at the positions it would have alone, so its loss is what
it would be alone. That needs a model that takes its attention mask and positions as they are given.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from selfie_adapters.inference.label_batches import LabelBatch, LabelTokens, build_batch
from selfie_adapters.model import BoundPrompt, FrozenModel, SharedPrefix
from selfie_adapters.model.cache_use import UNSUPPORTED, logit_tolerance
from selfie_adapters.model.library import forward

_MASKED_ATTENTION = {"eager", "sdpa"}  # those that take any mask


def branch_inputs(batch: LabelBatch, prefix_length: int, model: FrozenModel) -> dict[str, Any]:
    """`attention_mask` and `position_ids` for rows of several labels; nothing for plain rows."""
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


def longest_shared(model: FrozenModel) -> int | None:
    """Tokens that prompt and label may have for sharing to be right: the attention window, if any.

    In rows longer than the window, nearness in the row would stand for nearness in the text.
    """
    return getattr(model.network.config.get_text_config(decoder=True), "sliding_window", None)


@torch.no_grad()
def sharing_is_exact(model: FrozenModel, prompt: BoundPrompt, prefix: SharedPrefix) -> bool:
    """Whether two labels in one row get the logits that each gets alone. Two short passes."""
    if model.network.config._attn_implementation not in _MASKED_ATTENTION:
        return False
    # Any tokens do; the placeholder keeps its own embedding.
    words = torch.tensor([i for i in prompt.ids if i != prompt.placeholder_id])[-6:]
    ids = torch.cat([words, words.flip(0)])
    size = words.numel()
    labels = LabelTokens(ids, torch.tensor([0, size]), torch.tensor([size, size]))
    both = torch.arange(2)
    alone = _logits(model, build_batch(prompt, labels, both), prefix)
    try:
        together = _logits(
            model, build_batch(prompt, labels, both, torch.zeros(2, dtype=torch.int64)), prefix
        )
    except UNSUPPORTED:  # no such inputs, or not of this shape
        return False
    return bool((alone - together).abs().max() <= logit_tolerance(model, alone))


def _logits(model: FrozenModel, batch: LabelBatch, prefix: SharedPrefix) -> Tensor:
    """Logits before each label token, [label tokens, vocabulary], float32."""
    cache = prefix.for_batch(batch.ids.shape[0])
    logits = forward(
        model.network,
        input_ids=batch.ids.to(model.device),
        cache=cache,
        use_cache=cache is not None,
        **branch_inputs(batch, prefix.length, model),
    ).logits
    kept = logits[batch.keep.to(logits.device)]
    return kept[batch.predictors.to(logits.device)].float()
