"""A model of which the embedding table alone is loaded; its other weights are on the meta device.

It is for an engine that holds the weights itself: prompts of embeddings need the table, and the
network's structure states what the model can take in. It cannot be run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from safetensors import safe_open
from torch import Tensor, nn
from transformers import AutoConfig, PreTrainedModel

from selfie_adapters.errors import ModelError
from selfie_adapters.files import read_json, sha256
from selfie_adapters.model.blocks import token_embedding
from selfie_adapters.model.source import ModelSource, model_file
from selfie_adapters.model.text_model import text_model_class
from selfie_adapters.model.weights import is_other_tower

_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"


def embedding_network(
    source: ModelSource, dtype: torch.dtype, options: Mapping[str, Any]
) -> PreTrainedModel:
    """The network of `source` on the meta device, its token embedding on the CPU in `dtype`.

    What scales embeddings inside that module (Gemma's √d) is there as well. options: for
    transformers. Raises ModelError unless the safetensors files hold exactly one such table.
    """
    config = AutoConfig.from_pretrained(source.base, revision=source.revision, **options)
    with init_empty_weights(include_buffers=False):
        network = text_model_class(config, source.base).from_config(config, dtype=dtype, **options)
    network.name_or_path = source.base
    embedding = token_embedding(network)
    names = [name for name, _ in embedding.named_parameters()]
    if names != ["weight"]:
        raise ModelError(
            f"{source.name}: {type(embedding).__name__} has the parameters {', '.join(names)}; "
            "only a table (weight) can be loaded without the rest of the model. Use --engine local."
        )
    table = _read_table(source, network, embedding)
    embedding.register_parameter("weight", nn.Parameter(table.to(dtype), requires_grad=False))
    return network


def files_digest(base: str, revision: str | None) -> str:
    """Hex digest of the safetensors files of a model: it changes with any weight.

    A hub repository's files are those of a commit, so that they are not read.
    """
    folder = Path(base)
    if not folder.is_dir():
        return hashlib.sha256(f"{base} {revision}".encode()).hexdigest()
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")):
        digest.update(f"{file.name} {sha256(file)}\n".encode())
    return digest.hexdigest()


def _read_table(source: ModelSource, network: PreTrainedModel, embedding: nn.Module) -> Tensor:
    module = next(name for name, module in network.named_modules() if module is embedding)
    # What comes before the last part of the name differs between those who save models.
    ending = f".{module.rpartition('.')[2]}.weight"
    holders = _holders(source)
    keys = [key for key in holders if f".{key}".endswith(ending) and not is_other_tower(key)]
    if len(keys) != 1:
        raise ModelError(
            f"{source.name}: one tensor *{ending} is expected in its safetensors files, found "
            f"{', '.join(sorted(keys)) or 'none'}. Use --engine local."
        )
    with safe_open(_file(source, holders[keys[0]]), framework="pt") as opened:
        table = opened.get_tensor(keys[0])
    expected = list(embedding.get_parameter("weight").shape)
    if list(table.shape) != expected:
        raise ModelError(
            f"{source.name}: {keys[0]} is {list(table.shape)}, its configuration states "
            f"{expected}. Take config.json and weights from the same model."
        )
    return table


def _holders(source: ModelSource) -> dict[str, str]:
    """The name of the file that holds each tensor."""
    index = model_file(source.base, _INDEX, source.revision)
    if index is None:
        with safe_open(_file(source, _WEIGHTS), framework="pt") as opened:
            return dict.fromkeys(opened.keys(), _WEIGHTS)
    match read_json(index):
        case {"weight_map": {**holders}}:
            return {str(key): str(name) for key, name in holders.items()}
        case _:
            raise ModelError(f'{index}: an object "weight_map" is expected. Download it again.')


def _file(source: ModelSource, name: str) -> Path:
    found = model_file(source.base, name, source.revision)
    if found is None:
        raise ModelError(
            f"{source.name}: no file {name}. Its embedding is read from safetensors files: save "
            "the model with save_pretrained, or use --engine local."
        )
    return found
