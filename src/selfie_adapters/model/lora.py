"""A PEFT adapter (LoRA) merged into its base model.

transformers loads an adapter that it finds next to a model by itself where peft is installed, and
ignores it without a word where it is not. Here it is merged into the dense weights, or the model is
refused.
"""

from __future__ import annotations

import contextlib
import copy
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from torch import nn
from transformers import PreTrainedModel

from selfie_adapters.errors import ModelError
from selfie_adapters.extras import require_extra
from selfie_adapters.files import looks_local, nearest_paths, user_path
from selfie_adapters.model.quiet import without_warnings
from selfie_adapters.model.source import LORA_CONFIG


def find_lora(name: str) -> str:
    """The folder or hub id of the adapter `name`. Nothing is loaded.

    Raises ModelError for a path without an adapter, MissingExtraError without peft.
    """
    require_extra("peft", f"{name}: a LoRA. Merging it")
    path = user_path(name)
    if path.is_dir():
        if not (path / LORA_CONFIG).is_file():
            raise ModelError(
                f"{path}: no {LORA_CONFIG} in this folder. Expected a LoRA as peft's "
                "save_pretrained writes it, with adapter_config.json and adapter_model.safetensors."
            )
        return str(path)
    if path.is_file():
        raise ModelError(f"{path}: a file. Give the folder of the LoRA, {path.parent}.")
    if looks_local(name, (".safetensors", ".bin")):
        raise ModelError(f"{name}: no such folder. {nearest_paths(path)}")
    return name


def check_peft(adapter: str, base: str) -> None:
    """Raise MissingExtraError unless peft is installed."""
    where = f" ({LORA_CONFIG} next to the model's own files)" if adapter == base else ""
    require_extra("peft", f"{adapter}: a LoRA on {base}{where}. Merging it")


@contextlib.contextmanager
def base_alone(folder: str) -> Iterator[str]:
    """A view of a folder without the adapter that is stored with the base's own files.

    transformers offers no switch that works in all its versions.
    """
    with tempfile.TemporaryDirectory() as view:
        for path in Path(folder).resolve().iterdir():
            if not path.name.startswith("adapter_"):
                (Path(view) / path.name).symlink_to(path)
        yield view


def merged(network: PreTrainedModel, adapter: str, base: str) -> PreTrainedModel:
    """`network` with the adapter's weights added to its own.

    base: how the network is called in messages. Raises ModelError for an adapter that cannot be
    merged or does not fit the base.
    """
    with without_warnings():  # peft's deprecation warnings; `_fitted` checks its others
        return _merge(_fitted(network, adapter, base))


def merged_copy(network: PreTrainedModel, adapter: str, base: str) -> PreTrainedModel:
    """As `merged`, and `network` stays as it is.

    Matrices that the adapter does not change are shared, so the copy takes the memory of those
    that it changes. Raises like `merged`.
    """
    # deepcopy takes what is in its memo as copied already. Vectors are copied: peft may write
    # biases in place.
    shared = {id(weight): weight for weight in network.parameters() if weight.ndim > 1}
    with without_warnings():
        model = _fitted(copy.deepcopy(network, cast(Any, shared)), adapter, base)
        _own_weights(model)
        return _merge(model)


def _merge(model: Any) -> PreTrainedModel:
    return cast(PreTrainedModel, model.merge_and_unload())


def _own_weights(model: nn.Module) -> None:
    """Give the layers below an adapter weights of their own; tied weights stay tied."""
    own: dict[int, nn.Parameter] = {}
    for layer in model.modules():
        if isinstance(below := getattr(layer, "base_layer", None), nn.Module):
            for weight in below.parameters():
                own[id(weight)] = nn.Parameter(weight.detach().clone(), requires_grad=False)
    for module in model.modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            if id(weight) in own:
                setattr(module, name, own[id(weight)])


def _fitted(network: PreTrainedModel, adapter: str, base: str) -> nn.Module:
    """peft's model of the network and the adapter, all of whose weights are loaded."""
    import peft
    from peft.utils.save_and_load import load_peft_weights

    config = peft.PeftConfig.from_pretrained(adapter)
    if config.is_prompt_learning:
        raise ModelError(
            f"{adapter}: an adapter of type {config.peft_type}, which changes prompts and not "
            "weights. Only adapters that can be merged into the weights (LoRA) can be used."
        )
    try:
        model = peft.PeftModel.from_pretrained(network, adapter, config=config)
    except (RuntimeError, ValueError) as error:
        raise ModelError(
            f"{adapter}: the adapter does not fit its base {base}: "
            f"{(str(error).strip().splitlines() or [type(error).__name__])[-1].strip()}"
        ) from error
    # peft leaves weights that its file lacks at their initial values, with a warning at most.
    wanted = set(peft.get_peft_model_state_dict(model))
    found = set(load_peft_weights(adapter, device="cpu"))
    if wanted != found:
        raise ModelError(
            f"{adapter}: the adapter does not fit its base {base}: "
            f"{len(wanted - found)} weights are missing, {len(found - wanted)} are unexpected, the "
            f"first one {min(wanted ^ found)}. It states the base "
            f"{config.base_model_name_or_path} in {LORA_CONFIG}; it has to be merged into the "
            "model that it was trained on."
        )
    return model
