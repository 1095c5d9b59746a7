"""A prompt read once for each of many soft tokens, in the fastest way that the model allows."""

from __future__ import annotations

import torch
from torch import Tensor

from selfie_adapters.inference.continuation import Continuation, SoftRows
from selfie_adapters.inference.lm_head import lm_head
from selfie_adapters.inference.packed_rows import fits_window, packing_pays
from selfie_adapters.inference.slot_rows import SlotRows
from selfie_adapters.model import BoundPrompt, FrozenModel, SharedPrefix

_LONGEST_ANSWER = 512  # tokens


def after_prompt(
    model: FrozenModel, prompt: BoundPrompt, prefix: SharedPrefix, soft_tokens: Tensor
) -> Continuation:
    """The prompt read once for each of soft_tokens [n, d_model]; `prefix` is the prompt's own.

    prompt: as `shareable` returns it.
    """
    soft_tokens = soft_tokens.to(model.device)
    fits = fits_window(model, len(prompt.ids) + _LONGEST_ANSWER)
    if fits and lm_head(model).linear is not None and packing_pays(model):
        return SlotRows(model, prompt, prefix, soft_tokens)
    ids = torch.tensor(prompt.suffix_ids).expand(len(soft_tokens), -1)
    soft = SoftRows(soft_tokens, prompt.placeholder_id, len(prompt.sites))
    return Continuation(model, ids, prefix.for_batch(len(soft_tokens)), soft)
