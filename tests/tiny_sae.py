"""Small SAEs of SAELens with random weights, in memory."""

from __future__ import annotations

import warnings
from typing import Any

import torch

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # SAELens' own libraries warn as they are imported
    from sae_lens.registry import get_sae_class
    from sae_lens.saes.sae import SAEMetadata

D_IN, D_SAE, K = 12, 40, 6
KINDS = ("standard", "jumprelu", "gated", "topk")


def tiny_sae(
    kind: str,
    hook: str | None = "blocks.2.hook_resid_post",
    processed: dict[str, Any] | None = None,
    d_in: int = D_IN,
    d_sae: int = D_SAE,
    **options: Any,
) -> Any:
    """An SAE in which nothing is zero by accident."""
    sae_class, config_class = get_sae_class(kind)
    extra = {"k": K} if kind == "topk" else {}
    sae = sae_class(config_class(d_in=d_in, d_sae=d_sae, **extra, **options))
    sae.cfg.metadata = SAEMetadata(
        hook_name=hook, model_name="tiny", model_from_pretrained_kwargs=processed or {}
    )
    generator = torch.Generator().manual_seed(len(kind))
    with torch.no_grad():
        for name, weight in sae.named_parameters():
            drawn = torch.randn(weight.shape, generator=generator) * 0.5
            weight.copy_(drawn.abs() if name == "threshold" else drawn)
    return sae
