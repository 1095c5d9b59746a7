"""States of one model minus those of another, by the command and by hand."""

from __future__ import annotations

import importlib.util
import json

import pytest
import torch

from selfie_adapters.commands.label import label
from selfie_adapters.commands.prepare import difference
from selfie_adapters.dataset import load_dataset
from selfie_adapters.errors import ConfigError, DataError, ModelError
from selfie_adapters.files.json_lines import read_jsonl
from selfie_adapters.model import load_model
from tiny_folders import save_family
from tiny_lora import save_lora

PROMPTS = ["an owl", "fog at sea", "bread"]


@pytest.fixture
def prompts(tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("\n".join(PROMPTS) + "\n\n")
    return str(file)


@pytest.fixture
def two(tmp_path):
    """Two models that differ in everything."""
    models = (save_family(tmp_path / "tuned", seed=1), save_family(tmp_path / "base", seed=0))
    return tuple(map(str, models))


def _run(prompts, tmp_path, **options):
    out = tmp_path / "d.json"
    options = {"layers": [1], "chat": "none", "dtype": "float32", **options}
    difference(prompts, out=str(out), **options)
    return load_dataset(out)


def _state(name, prompt, layer, position):
    model = load_model(name, "float32", "cpu")
    ids = model.tokenizer(prompt, add_special_tokens=False, return_tensors="pt")["input_ids"]
    hidden = model.network(ids, output_hidden_states=True).hidden_states[layer + 1]
    return hidden[0, position]


def test_rows_are_the_mean_and_each_prompts_difference(prompts, two, tmp_path, capsys):
    tuned, base = two
    options = {"layers": [0, 1], "positions": "0:2,-1"}
    dataset = _run(prompts, tmp_path, model=tuned, minus=base, **options)
    names = [section.id for section in dataset.sections]
    assert names == [f"d_at_{at}@l{layer}" for at in (0, 1, -1) for layer in (0, 1)]
    section = dataset.sections[-1]
    by_hand = torch.stack(
        [_state(tuned, prompt, 1, -1) - _state(base, prompt, 1, -1) for prompt in PROMPTS]
    )
    found = section.vectors[torch.arange(4)]
    torch.testing.assert_close(found[1:], by_hand, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found[0], by_hand.mean(dim=0), atol=1e-4, rtol=1e-4)
    assert [item.labels for item in section.items] == [
        ["mean of 3 prompts"],
        *([p] for p in PROMPTS),
    ]
    assert {item.split for item in section.items} == {"test"}
    assert (section.metadata["model"], section.metadata["minus"]) == (tuned, base)
    change = section.metadata["change"]
    assert change["mean_norm"] == pytest.approx(float(by_hand.mean(dim=0).norm()), rel=1e-3)
    assert change["norm"] == pytest.approx(float(by_hand.norm(dim=1).mean()), rel=1e-3)
    cosines = [
        float(torch.cosine_similarity(by_hand[i], by_hand.sum(dim=0) - by_hand[i], dim=0))
        for i in range(3)
    ]
    assert change["agreement"] == pytest.approx(sum(cosines) / 3, abs=1e-3)
    assert "3 prompts: " in capsys.readouterr().out


@pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="extra peft")
@pytest.mark.parametrize("named", ["lora", "model"])
def test_a_lora_minus_its_base(named, prompts, two, tmp_path):
    base = two[1]
    lora = str(save_lora(tmp_path / "lora", base))
    given = {"model": base, "lora": lora} if named == "lora" else {"model": lora, "minus": base}
    (section,) = _run(prompts, tmp_path, **given).sections
    expected = _state(lora, PROMPTS[0], 1, -1) - _state(base, PROMPTS[0], 1, -1)
    assert expected.norm() > 0.1
    found = section.vectors[torch.tensor([1])][0]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_differences_are_labelled(prompts, golden_dir, tmp_path):
    base = golden_dir / "model"
    tuned = tmp_path / "tuned"
    model = load_model(base, "float32", "cpu")
    with torch.no_grad():
        model.network.model.layers[0].mlp.down_proj.weight.mul_(2)
    model.network.save_pretrained(tuned)
    model.tokenizer.save_pretrained(tuned)
    _run(prompts, tmp_path, model=str(tuned), minus=str(base))
    adapter = golden_dir / "adapters/scalar_affine_norm.safetensors"
    out = tmp_path / "labels"
    options = {"model": str(base), "dtype": "float32", "max_new_tokens": 4, "indices": "0"}
    label(str(tmp_path / "d.json"), adapter=str(adapter), out=str(out), **options)
    (row,) = read_jsonl(out / "labels-00000.jsonl")
    assert (row["dataset"], row["index"]) == ("d_at_-1@l1", 0)
    mean = tmp_path / "d_l1_at_-1.safetensors"
    with pytest.raises(ConfigError, match="Omit --mean"):
        label(
            str(tmp_path / "d.json"),
            adapter=str(adapter),
            mean=str(mean),
            out=f"{out}_2",
            **options,
        )


def test_equal_models_are_refused_before_anything_is_written(prompts, two, tmp_path):
    with pytest.raises(DataError, match="layer 1, position -1: the models' states are the same"):
        _run(prompts, tmp_path, model=two[0], minus=two[0])
    assert not list(tmp_path.glob("d*.json*"))
    assert not list(tmp_path.glob("d*.safetensors"))


def test_models_of_another_width_or_tokenizer_are_refused(prompts, two, tmp_path):
    wide = str(save_family(tmp_path / "wide", hidden_size=64))
    with pytest.raises(DataError, match="widths 32 and 64"):
        _run(prompts, tmp_path, model=two[0], minus=wide)
    file = tmp_path / "base/tokenizer.json"
    tokenizer = json.loads(file.read_text())
    tokenizer["normalizer"] = {"type": "Lowercase"}
    file.write_text(json.dumps(tokenizer))
    (tmp_path / "prompts.txt").write_text("owl\nan Owl\n")
    with pytest.raises(ModelError, match="prompt 1: the tokens of .* differ from token 3 on"):
        _run(prompts, tmp_path, model=two[0], minus=two[1])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, ConfigError, "give the model to subtract"),
        ({"minus": "b", "layers": [1, 1]}, ConfigError, "layers .1, 1.: give each once"),
        ({"minus": "b", "positions": "name"}, ConfigError, "positions"),
        ({"minus": "./gone"}, ModelError, "gone: no such model"),
    ],
)
def test_wrong_options_are_refused(options, error, message, prompts, two, tmp_path):
    with pytest.raises(error, match=message):
        _run(prompts, tmp_path, **{"model": two[0], **options})


def test_a_position_that_a_prompt_lacks_is_named(prompts, two, tmp_path):
    with pytest.raises(DataError, match="position 9 in a text of 6 tokens: 'an owl'"):
        _run(prompts, tmp_path, model=two[0], minus=two[1], positions="9")
