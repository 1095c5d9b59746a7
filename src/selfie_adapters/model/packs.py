"""Whether a model can be run on packed rows: tried once per loaded model."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from selfie_adapters.errors import first_line
from selfie_adapters.model.attention import is_installed
from selfie_adapters.model.cache_use import UNSUPPORTED, cache_use, logit_tolerance
from selfie_adapters.model.library import cache_of, forward
from selfie_adapters.model.loading import FrozenModel
from selfie_adapters.model.once import once_per_network
from selfie_adapters.model.packed_pass import PackedPass
from selfie_adapters.model.packing import KeysValues, Packing

_log = logging.getLogger(__name__)


@once_per_network
def packs(model: FrozenModel) -> bool:
    """Whether packed rows get the decoder's output that each gets alone."""
    if not is_installed(model.network) or not cache_use(model).branches:
        return False
    try:
        expected, found = tried_outputs(model)
    except UNSUPPORTED as error:  # another attention, or a decoder that takes no embeddings
        _log.info("%s is not run on packed rows: %s", model.name, first_line(error))
        return False
    return bool((found - expected).abs().max() <= logit_tolerance(model, expected))


@torch.no_grad()
def tried_outputs(model: FrozenModel) -> tuple[Tensor, Tensor]:
    """The decoder's output for rows of 5 and 3 tokens after 3 that they share, alone and packed."""
    ids = (torch.arange(16).view(2, 8) * 37 + 11) % min(model.vocab_size, 251)
    ids[1, :3] = ids[0, :3]
    decoder, device = model.network.get_decoder(), model.device
    lengths = torch.tensor([5, 3])
    kept = torch.arange(5) < lengths.unsqueeze(1)
    expected = forward(decoder, input_ids=ids.to(device), use_cache=False).last_hidden_state
    first = forward(decoder, input_ids=ids[:1, :3].to(device), use_cache=True)
    before = KeysValues.in_cache(cache_of(first))
    packing = Packing(lengths, before, device, model.dtype)
    embedded = model.embedding(ids[:, 3:][kept].to(device).unsqueeze(0))
    positions = torch.arange(3, 8).repeat(2, 1)[kept].to(device).unsqueeze(0)
    found = PackedPass(model).once(embedded, positions, packing)
    return expected[:, 3:][kept.to(expected.device)], found
