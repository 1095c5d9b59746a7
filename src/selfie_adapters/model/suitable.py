"""Whether a model can hold soft tokens at all: one that cannot is refused before any work."""

from __future__ import annotations

import torch

from selfie_adapters.errors import ModelError
from selfie_adapters.model.cache_use import cache_use
from selfie_adapters.model.loading import FrozenModel, once_per_network


@once_per_network
def check_model(model: FrozenModel) -> None:
    """Raise ModelError, with the reason, for a model that soft tokens cannot work with.

    Its embedding must be as wide as its blocks, and it must run and be causal, which a model of
    which the embedding alone is loaded cannot show.
    """
    _check_embedding_width(model)
    if not model.embedding_only:
        cache_use(model)


def _check_embedding_width(model: FrozenModel) -> None:
    """A soft token is a vector of the residual stream and replaces a row of the embedding layer's
    output."""
    ids = torch.zeros(1, 1, dtype=torch.int64, device=model.device)
    with torch.no_grad():
        width = model.embedding(ids).shape[-1]
    if width != model.d_model:
        raise ModelError(
            f"{model.name} embeds tokens in {width} numbers and projects them to its d_model "
            f"{model.d_model} afterwards, so a vector of width {model.d_model} cannot be its soft "
            "token. Use a model whose embedding has the width of its blocks."
        )
