"""What an adapter is bound to: enough of a live model to notice that it is another one."""

from __future__ import annotations

import torch

from selfie_adapters.adapters.binding import Binding
from selfie_adapters.installed import versions
from selfie_adapters.model.capture import capture
from selfie_adapters.model.loading import FrozenModel
from selfie_adapters.model.prompt import BoundPrompt

_PACKAGES = ("selfie-adapters", "torch", "transformers", "tokenizers", "safetensors")


def bind(model: FrozenModel, prompt: BoundPrompt, layer: int | None = None) -> Binding:
    """The binding of `model` and `prompt` (invariant 4); `layer` is where the vectors come from."""
    return Binding(
        model=model.name,
        revision=model.revision,
        d_model=model.d_model,
        template=prompt.prompt.template,
        placeholder=prompt.prompt.placeholder,
        placeholder_id=prompt.placeholder_id,
        sites=prompt.sites,
        layer=layer,
        mean_embedding_norm=mean_embedding_norm(model),
        versions=versions(_PACKAGES),
        fingerprint=forward_fingerprint(model, prompt),
    )


@torch.inference_mode()
def mean_embedding_norm(model: FrozenModel, sample: int = 4096) -> float:
    """Mean L2 norm of the embedding layer's output over evenly spaced token ids.

    Taken at the output, so a scale inside the module (Gemma's √d) shows.
    """
    step = max(1, model.vocab_size // sample)
    ids = torch.arange(0, model.vocab_size, step, device=model.device).unsqueeze(0)
    return float(model.embedding(ids).float().norm(dim=-1).mean())


@torch.inference_mode()
def forward_fingerprint(model: FrozenModel, prompt: BoundPrompt) -> tuple[float, ...]:
    """RMS of the prompt's last hidden state after each quarter of the blocks.

    One forward pass of the prompt with the placeholder's own embedding. Another model, or a
    library that computes the same model differently, gives other numbers.
    """
    n = model.n_layers
    layers = sorted({max(0, n * quarter // 4 - 1) for quarter in (1, 2, 3, 4)})
    last = torch.tensor([len(prompt.ids) - 1])
    hidden = capture(model, torch.tensor([prompt.ids]), layers, last)[0]
    return tuple(round(float(x), 6) for x in hidden.float().pow(2).mean(dim=-1).sqrt())
