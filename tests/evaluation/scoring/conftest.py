from __future__ import annotations

import pytest

from selfie_adapters.model import FrozenModel
from selfie_adapters.sources.sae.encoder import encoder_of
from tiny import D_MODEL, golden_tokenizer, tiny_network
from tiny_sae import tiny_sae


@pytest.fixture(scope="module")
def parts(request):
    """A tiny model, an SAE of it, and the SAE's encoder at the LATENTS of the module."""
    model = FrozenModel(tiny_network("llama"), golden_tokenizer(), "tiny")
    sae = tiny_sae("jumprelu", "blocks.1.hook_resid_post", d_in=D_MODEL)
    return model, sae, encoder_of(sae, request.module.LATENTS)
