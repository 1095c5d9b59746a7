from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from selfie_adapters.errors import ModelError
from selfie_adapters.model import load_model
from selfie_adapters.model.fingerprint import mean_embedding_norm, weights_digest
from selfie_adapters.model.limits import learned_positions
from tiny import FAMILIES, golden_tokenizer, tiny_network


@pytest.fixture
def saved(tmp_path):
    def saved(family="llama", **options):
        tiny_network(family).save_pretrained(tmp_path / family, **options)
        golden_tokenizer().save_pretrained(tmp_path / family)
        return tmp_path / family

    return saved


@pytest.mark.parametrize("family", [*FAMILIES, "gpt2", "opt"])
def test_the_table_is_that_of_the_whole_model_and_nothing_else_is_loaded(saved, family):
    folder = saved(family)
    whole, alone = (
        load_model(folder, "bfloat16", "cpu"),
        load_model(folder, "bfloat16", embedding_only=True),
    )
    ids = torch.arange(50).unsqueeze(0)
    assert torch.equal(alone.embedding(ids), whole.embedding(ids))
    assert mean_embedding_norm(alone) == mean_embedding_norm(whole)
    assert (alone.d_model, alone.vocab_size) == (whole.d_model, whole.vocab_size)
    assert (alone.device, alone.dtype) == (torch.device("cpu"), torch.bfloat16)
    assert learned_positions(alone) == learned_positions(whole)
    table = next(alone.embedding.parameters())
    assert all(p.is_meta for p in alone.network.parameters() if p is not table)


def test_it_is_read_from_the_file_that_holds_it(saved):
    folder = saved(max_shard_size="20KB")
    assert len(list(folder.glob("*.safetensors"))) > 2
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    holder = index["weight_map"]["model.embed_tokens.weight"]
    whole = load_model(folder, "float32", "cpu")
    for file in folder.glob("*.safetensors"):
        if file.name != holder:
            file.write_bytes(b"")
    alone = load_model(folder, "float32", embedding_only=True)
    ids = torch.arange(9).unsqueeze(0)
    assert torch.equal(alone.embedding(ids), whole.embedding(ids))


def test_the_digest_is_of_all_weights_and_of_the_dtype(saved):
    folder = saved()

    def digest(dtype="float32"):
        return weights_digest(load_model(folder, dtype, embedding_only=True))

    before = digest()
    assert digest() == before
    assert digest("bfloat16") != before
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][3] += 1e-4
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    assert digest() != before


def _renamed(weights):
    weights["model.tokens.weight"] = weights.pop("model.embed_tokens.weight")


def _twice(weights):
    weights["draft.embed_tokens.weight"] = weights["model.embed_tokens.weight"].clone()


def _narrow(weights):
    weights["model.embed_tokens.weight"] = torch.zeros(261, 31)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_renamed, r"one tensor \*\.embed_tokens\.weight is expected .* found none"),
        (_twice, r"found draft\.embed_tokens\.weight, model\.embed_tokens\.weight"),
        (_narrow, r"model\.embed_tokens\.weight is \[261, 31\].* states \[261, 32\]"),
    ],
)
def test_a_table_that_is_not_there_is_an_error(saved, change, message):
    folder = saved()
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=message):
        load_model(folder, "float32", embedding_only=True)


def test_weights_that_are_not_in_safetensors_are_an_error(saved):
    folder = saved()
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"no file model\.safetensors"):
        load_model(folder, "float32", embedding_only=True)


def test_a_vision_towers_embedding_is_not_mistaken_for_it(saved):
    folder = saved()
    weights = load_file(folder / "model.safetensors")
    weights["model.vision_tower.embed_tokens.weight"] = torch.zeros(4, 4)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    alone = load_model(folder, "float32", embedding_only=True)
    assert alone.embedding.weight.shape == (261, 32)
