"""A fine-tune of a loaded model: the same model with a LoRA merged, next to the model itself.

The model itself stays as it is, so that one of them can be read and the other one can write labels.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from selfie_adapters.errors import ModelError
from selfie_adapters.files import read_json
from selfie_adapters.model.demo_model import HUB_NAME
from selfie_adapters.model.loading import NO_CODE, FrozenModel, loading
from selfie_adapters.model.lora import find_lora, merged_copy
from selfie_adapters.model.source import LORA_CONFIG, ModelSource, model_file

log = logging.getLogger(__name__)


def with_lora(model: FrozenModel, lora: str | Path) -> FrozenModel:
    """`model` with the LoRA `lora` (folder or hub id) merged, in the same dtype and place.

    Matrices that the LoRA does not change are shared with `model`, which stays as it is. The
    tokenizer is the LoRA's where its folder has one: fine-tuning may change the chat template.
    A LoRA that states a base of another name is merged with a warning: copies of a model have
    different names. Raises ModelError for a LoRA that does not fit, MissingExtraError without peft.
    """
    adapter = find_lora(str(lora))
    if model.embedding_only:
        raise ModelError(
            f"{model.name}: a LoRA needs all weights, and only the embedding table is loaded."
        )
    with loading(adapter):
        _compare_base(adapter, model)
        tokenizer = _tokenizer(adapter, model)
        network = merged_copy(model.network, adapter, model.name)
    return replace(
        model,
        network=network,
        tokenizer=tokenizer,
        name=f"{model.name} with the adapter {lora}",
        adapter=adapter,
    )


def _compare_base(adapter: str, model: FrozenModel) -> None:
    """Warn if the LoRA states a base of another name than the model's."""
    config = model_file(adapter, LORA_CONFIG, None)
    if config is None:
        raise ModelError(
            f"{adapter}: no {LORA_CONFIG} there, or the hub cannot be asked. Give the folder or "
            "hub id of a LoRA, as peft's save_pretrained writes it."
        )
    found = read_json(config)
    stated = found.get("base_model_name_or_path") if isinstance(found, dict) else None
    known = [model.name, model.network.name_or_path, *([HUB_NAME] if model.name == "demo" else [])]
    names = {Path(str(name)).name.casefold() for name in known}
    if isinstance(stated, str) and stated and Path(stated).name.casefold() not in names:
        log.warning(
            "%s: a LoRA that states the base %s is merged into %s. Use the model that it was "
            "trained on.",
            adapter,
            stated,
            model.name,
        )


def _tokenizer(adapter: str, model: FrozenModel) -> PreTrainedTokenizerBase:
    source = ModelSource(adapter, base="", adapter=adapter).tokenizer()
    if source["pretrained_model_name_or_path"] != adapter:
        return model.tokenizer
    found = AutoTokenizer.from_pretrained(**source, **NO_CODE)
    if found.get_vocab() != model.tokenizer.get_vocab():
        raise ModelError(
            f"{adapter}: its tokenizer has other tokens than that of {model.name}. Use the model "
            "that the LoRA was trained on."
        )
    return found
