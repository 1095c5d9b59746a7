"""A model is loaded completely or not at all."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from selfie_adapters.errors import ModelError
from selfie_adapters.model import load_model
from tiny_folders import change_weights, save_causal, save_family

_IDS = torch.tensor([[256, 97, 98]])
_SMALL = {"vocab_size": 261, "max_position_embeddings": 64}


def _logits(folder):
    return load_model(folder, dtype="float32", device_map="cpu").network(input_ids=_IDS).logits


def _named(prefix):
    return lambda weights: {prefix + key: weight for key, weight in weights.items()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            _named("_orig_mod."),
            r'39|30 weights are missing.*hold "_orig_mod\.", which torch.compile',
        ),
        (_named("module."), r'hold "module\.", which DistributedDataParallel adds.*replace'),
        (
            lambda w: {k.replace("mlp", "_orig_mod.mlp"): v for k, v in w.items()},
            r"9 weights are missing: model\.layers\.\*\.mlp.down_proj.weight .*_orig_mod",
        ),
        (
            lambda w: {k: v for k, v in w.items() if "layers.2.mlp" not in k},
            r"3 weights are missing: model\.layers\.\*\.mlp\.down_proj\.weight, ",
        ),
        (lambda w: {**w, "extra.weight": torch.ones(2)}, r"1 weights are unexpected: extra.weight"),
        (
            lambda w: {**w, "model.norm.weight": torch.ones(7)},
            r"1 weights have another shape: model.norm.weight is \[7\], \[32\] is expected",
        ),
        (
            lambda w: {k: v for k, v in w.items() if k != "lm_head.weight"},
            r"missing: lm_head.weight\. The output layer was not saved.*tie_word_embeddings",
        ),
        (
            lambda w: (
                {k.replace("q_proj.weight", "q_proj.base_layer.weight"): v for k, v in w.items()}
                | {"model.layers.0.self_attn.q_proj.lora_A.default.weight": torch.ones(2, 32)}
            ),
            r"unmerged LoRA",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(change, message, tmp_path):
    folder = change_weights(save_family(tmp_path / "m"), change)
    with pytest.raises(ModelError, match=message):
        load_model(folder, dtype="float32")


def test_an_embedding_of_another_size_than_the_configuration_says_is_refused(tmp_path):
    folder = save_family(tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": 300}))
    with pytest.raises(ModelError, match=r"embed_tokens.weight is \[261, 32\], \[300, 32\]"):
        load_model(folder, dtype="float32")


def test_a_base_models_names_without_the_prefix_are_understood(tmp_path):
    folder = save_family(tmp_path / "m", "gemma2")  # its head is the embedding
    expected = _logits(folder)
    change_weights(folder, lambda w: {k.removeprefix("model."): v for k, v in w.items()})
    assert torch.equal(_logits(folder), expected)


def test_a_tied_head_may_be_stored_too(tmp_path):
    folder = save_family(tmp_path / "m", "gemma2")
    expected = _logits(folder)
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    change_weights(folder, lambda w: {**w, "lm_head.weight": w["model.embed_tokens.weight"]})
    assert torch.equal(_logits(folder), expected)


@pytest.mark.parametrize(
    ("kind", "options", "buffers"),
    [
        (
            "gpt_neox",
            {**_SMALL, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
            | {"num_attention_heads": 4},
            ["gpt_neox.layers.{}.attention." + n for n in ("bias", "masked_bias")]
            + ["gpt_neox.layers.{}.attention.rotary_emb.inv_freq"],
        ),
        (
            "gpt2",
            {"vocab_size": 261, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
            ["transformer.h.{}.attn." + n for n in ("bias", "masked_bias")],
        ),
        (
            "gpt_neo",
            {**_SMALL, "hidden_size": 32, "num_layers": 2, "num_heads": 4}
            | {"attention_types": [[["global", "local"], 1]]},
            ["transformer.h.{}.attn.attention." + n for n in ("bias", "masked_bias")],
        ),
    ],
)
def test_buffers_of_old_files_are_no_weights(kind, options, buffers, tmp_path):
    folder = save_causal(tmp_path / "m", kind, **options)
    expected = _logits(folder)
    names = [name.format(layer) for layer in range(2) for name in buffers]
    change_weights(folder, lambda w: {**w, **{name: torch.ones(4) for name in names}})
    assert torch.equal(_logits(folder), expected)


def test_sharded_and_pickled_files_are_the_same_model(tmp_path):
    folder = save_family(tmp_path / "m")
    expected = _logits(folder)
    network = load_model(folder, dtype="float32", device_map="cpu").network
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    assert torch.equal(_logits(folder), expected)
    (folder / "pytorch_model.bin").unlink()
    network.save_pretrained(folder, max_shard_size="20KB")
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 3
    assert torch.equal(_logits(folder), expected)
    shards[1].unlink()
    with pytest.raises(ModelError, match=shards[1].name):
        load_model(folder, dtype="float32")
