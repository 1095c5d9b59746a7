"""The logit lens: a state read through the model's own final norm and head, without training.

nostalgebraist, "interpreting GPT: the logit lens" (2020). The vectors are centered: a state minus
the mean of its block and kind of position. Which modules are between the last block and the logits
is tried once per model, not looked up by name.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from selfie_adapters.errors import DataError, ModelError
from selfie_adapters.model import FrozenModel
from selfie_adapters.model.cache_use import UNSUPPORTED
from selfie_adapters.model.library import forward
from selfie_adapters.model.loading import once_per_network

_ROWS_AT_ONCE = 256  # a row of logits takes up to 1 MB


def lens_words(model: FrozenModel, vectors: Tensor) -> list[str]:
    """The most likely token of each centered vector, decoded, without whitespace around it.

    vectors: [n, d_model]. Raises like `lens_logits`.
    """
    ids = [row for logits in lens_logits(model, vectors) for row in logits.argmax(dim=-1).tolist()]
    return [str(model.tokenizer.decode([token])).strip() for token in ids]


def lens_logits(model: FrozenModel, vectors: Tensor) -> Iterator[Tensor]:
    """Logits of centered vectors [n, d_model]: pieces of [rows, vocabulary], float32, on the CPU.

    The model's own final norm and head are called on each vector; a vector's length does not
    matter to a norm. Scaling or capping that a model does to its logits afterwards is omitted: it
    keeps their order. Raises DataError for vectors of another shape, and like `check_lens`.
    """
    if vectors.ndim != 2 or vectors.shape[1] != model.d_model:
        raise DataError(
            f"vectors of shape {list(vectors.shape)}: [n, {model.d_model}] is expected for "
            f"{model.name}."
        )
    modules = check_lens(model)
    return (_through(modules, piece.to(model.dtype)) for piece in vectors.split(_ROWS_AT_ONCE))


def check_lens(model: FrozenModel) -> list[nn.Module]:
    """The modules between the last block and the logits, the head last.

    Raises ModelError for a model whose logits are not those modules' output.
    """
    modules = _after_blocks(model)
    if modules is None:
        raise ModelError(
            f"{model.name}: {type(model.network).__name__} does more between its last block and "
            "its logits than a norm and a linear head, so there is no logit lens for it."
        )
    return modules


@torch.no_grad()
def _through(modules: list[nn.Module], states: Tensor) -> Tensor:
    for module in modules:
        place = next((weight.device for weight in module.parameters()), states.device)
        states = module(states.to(place))
    return states.float().cpu()


@once_per_network
@torch.no_grad()
def _after_blocks(model: FrozenModel) -> list[nn.Module] | None:
    """The modules that make the head's output of the last block's, in order, the head last.

    One pass over three tokens shows which run after the last block. None if calling them one after
    another does not give what the head gave, bit for bit.
    """
    head, last = model.network.get_output_embeddings(), model.blocks[-1]
    if not isinstance(head, nn.Module):
        return None
    calls: list[tuple[nn.Module, Tensor]] = []

    def hook(module: nn.Module, _args: Any, output: Any) -> None:
        if module is last:
            calls.clear()
        if module is last or calls:
            calls.append((module, output[0] if isinstance(output, (tuple, list)) else output))

    handles = [module.register_forward_hook(hook) for module in _outer_modules(model)]
    ids = torch.arange(3, device=model.device).unsqueeze(0) % model.vocab_size
    try:
        forward(model.network, input_ids=ids, use_cache=False)
        modules = [module for module, _ in calls]
        found = [(module, output) for module, output in calls if module is head]
        if not found or modules[0] is not last:
            return None
        modules = modules[1 : modules.index(head) + 1]
        logits = found[0][1]
        ours = _through(modules, calls[0][1])
    except UNSUPPORTED:  # a module that takes more than a tensor
        return None
    finally:
        for handle in handles:
            handle.remove()
    return modules if torch.equal(ours, logits.float().cpu()) else None


def _outer_modules(model: FrozenModel) -> Iterator[nn.Module]:
    """The last block, and the modules that are neither in a block nor hold other modules."""
    yield model.blocks[-1]
    inside = {id(module) for block in model.blocks for module in block.modules()}
    for module in model.network.modules():
        if id(module) not in inside and next(module.children(), None) is None:
            yield module
