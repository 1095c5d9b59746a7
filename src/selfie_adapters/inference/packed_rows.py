"""Label rows as one row without padding: the losses of padded rows, with fewer tokens to compute.

On a GPU a micro-batch holds many rows, of which a quarter would be padding. Models whose attention
is not ours (`model/attention.py`) keep padded rows, and so do CPUs, where small micro-batches of
rows of similar length have hardly any padding.
"""

from __future__ import annotations

import torch
from torch import Tensor

from selfie_adapters.inference.label_batches import LabelBatch
from selfie_adapters.inference.lm_head import LmHead
from selfie_adapters.model import BoundPrompt, FrozenModel, SharedPrefix
from selfie_adapters.model.attention import laid_out, no_mask
from selfie_adapters.model.injection import injected_in_row
from selfie_adapters.model.packed_pass import PackedPass, packs
from selfie_adapters.model.packing import Packing, Sizes, to_device

# What configurations call the attention window: within it, all tokens see each other.
_WINDOWS = ("sliding_window", "attention_chunk_size")


def packing_pays(model: FrozenModel) -> bool:
    """Whether packed rows are possible and faster."""
    return model.device.type == "cuda" and packs(model)


def fits_window(model: FrozenModel, tokens: int) -> bool:
    """Whether prompt and label, `tokens` together, fit the attention window, if the model has any.

    In rows that share or are packed, nearness in the row would stand for nearness in the text.
    """
    config = model.network.config.get_text_config(decoder=True)
    windows = [getattr(config, name, None) for name in _WINDOWS]
    return all(tokens <= window for window in windows if window)


class PackedRows:
    """Passes over packed label rows, all behind one shared prefix."""

    def __init__(
        self, model: FrozenModel, prompt: BoundPrompt, prefix: SharedPrefix, head: LmHead
    ) -> None:
        self._model, self._prompt, self._head = model, prompt, head
        self._before, self._past = prefix.keys_values(), prefix.length
        self._pass = PackedPass(model)

    def found(self, batch: LabelBatch, soft_tokens: Tensor) -> Tensor:
        """Before each label token, in the order of `batch.predictors`: hidden states if the head is
        linear, else logits. soft_tokens: [rows, d_model], on the model's device."""
        model = self._model
        # A row's last input token predicts its label's end.
        lengths = (batch.keep * torch.arange(1, batch.ids.shape[1] + 1)).amax(dim=1)
        inside = torch.arange(batch.ids.shape[1]) < lengths.unsqueeze(1)
        sizes = Sizes.of(lengths, rounded=self._pass.replays)
        spare = sizes.tokens - int(lengths.sum())
        ids = torch.nn.functional.pad(batch.ids[inside], (0, spare), value=self._prompt.end_id)
        positions = torch.nn.functional.pad(batch.positions[inside] + self._past, (0, spare))
        packing = Packing(lengths, self._before, model.device, model.dtype, batch.visible, sizes)
        keep = batch.keep[inside].nonzero().squeeze(1)
        given = to_device(ids, model.device).unsqueeze(0)
        injected = injected_in_row(
            model.embedding, soft_tokens, ids, lengths, self._prompt.placeholder_id
        )
        if self._head.linear is not None:
            with injected:
                embedded = model.embedding(given)
            hidden = self._pass.hidden(embedded, positions, packing)
            return hidden.index_select(0, to_device(keep, hidden.device))
        mask = torch.zeros(1, sizes.tokens, dtype=torch.bool)
        mask[0, keep] = True
        with injected, laid_out(packing):
            return self._head.logits(
                keep=to_device(mask, model.device),
                use_cache=False,
                input_ids=given,
                position_ids=to_device(positions, model.device).unsqueeze(0),
                attention_mask=no_mask(model.device, model.dtype),
            )[0]
