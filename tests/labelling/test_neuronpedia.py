"""Files for Neuronpedia."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from label_runs import NASTY, row
from selfie_adapters.errors import ConfigError, DataError, MissingFileError
from selfie_adapters.files.text_lines import read_prompts
from selfie_adapters.labelling.finished_run import open_run
from selfie_adapters.labelling.neuronpedia import (
    to_neuronpedia,
    to_neuronpedia_admin,
    to_neuronpedia_vectors,
)
from selfie_adapters.labelling.neuronpedia_upload import sae_of, to_neuronpedia_upload
from selfie_adapters.model import capture, load_model
from selfie_adapters.sources.sae.encoder import encoder_of
from tiny_sae import tiny_sae


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").strip("\n").split("\n")]


def test_rows_with_an_author_have_what_the_importers_tables_require(run, tmp_path):
    out = tmp_path / "np/explanations.jsonl"
    assert to_neuronpedia(open_run(run()), out, "llama3.1-8b", "19-res", "user1") == 6
    rows = lines(out)
    assert {one["authorId"] for one in rows} == {"user1"}
    assert len({one["id"] for one in rows}) == 6
    (kind,) = lines(tmp_path / "np/explanation_type.jsonl")
    (model,) = lines(tmp_path / "np/explanation_model_type.jsonl")
    assert {one["typeName"] for one in rows} == {kind["name"]}
    assert {one["explanationModelName"] for one in rows} == {model["name"]}
    assert kind["creatorId"] == "user1"
    again = tmp_path / "np/again.jsonl"
    to_neuronpedia(open_run(run()), again, "llama3.1-8b", "19-res", "user1")
    assert again.read_bytes() == out.read_bytes()
    to_neuronpedia(open_run(run()), again, "llama3.1-8b", "20-res", "user1")
    assert not {one["id"] for one in lines(again)} & {one["id"] for one in rows}


def test_administrators_get_a_list(run, tmp_path):
    assert to_neuronpedia_admin(open_run(run()), tmp_path / "a.json", "m", "19-res", "u") == 6
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))[0] == {
        "modelId": "m",
        "layer": "19-res",
        "index": "0",
        "explanation": NASTY[0],
        "creatorId": "u",
        "skipScore": True,
    }


def test_directions_are_bodies_of_requests(run, vectors, tmp_path):
    with pytest.raises(ConfigError, match="--layer"):
        to_neuronpedia_vectors(open_run(run()), tmp_path / "v.jsonl", "m")
    assert to_neuronpedia_vectors(open_run(run()), tmp_path / "v.jsonl", "m", layer=7) == 6
    body = lines(tmp_path / "v.jsonl")[3]
    assert body.pop("vector") == pytest.approx(vectors[3].tolist())
    assert body == {
        "modelId": "m",
        "layerNumber": 7,
        "hookType": "hook_resid_post",
        "vectorDefaultSteerStrength": 10.0,
        "vectorLabel": NASTY[3],
    }


def test_vectors_wider_than_the_site_takes_are_refused(run, tmp_path):
    folder = run()
    save_file({"v": torch.ones(8, 24_577)}, tmp_path / "v.safetensors")
    with pytest.raises(DataError, match="width 24,577; Neuronpedia takes 24,576"):
        to_neuronpedia_vectors(open_run(folder), tmp_path / "v.jsonl", "m", layer=1)
    assert not (tmp_path / "v.jsonl").exists()


PROMPTS = ["owls fly at night", "a bee", "the fog over the valley is thick", "soup", "rain", "owls"]


@pytest.fixture
def features(golden_dir, run, tmp_path):
    """Uploads of a run over a tiny SAE of the golden model, and that model and SAE."""
    model = load_model(str(golden_dir / "model"), "float32")
    sae = tiny_sae("jumprelu", "blocks.1.hook_resid_post", d_in=model.d_model)
    sae.save_model(tmp_path / "sae")
    rows = [row(i, f"label {i}") for i in range(7)] + [row(7, "x" * 600)]
    count = to_neuronpedia_upload(
        open_run(run(rows)), tmp_path / "f.jsonl", "m", "1-s", model, str(tmp_path / "sae"), PROMPTS
    )
    return model, sae, count, lines(tmp_path / "f.jsonl")


def test_features_come_with_the_texts_that_activate_them_the_most(features):
    model, sae, (count, silent), bodies = features
    assert count + silent == 8
    (body,) = bodies
    assert (body["modelId"], body["source"]) == ("m", "1-s")
    assert [len(one["explanations"][0]["text"]) <= 512 for one in body["features"]]
    encoder = encoder_of(sae, range(8))
    by_hand = {}  # latent → largest activation of each text, its first token aside
    for text in PROMPTS:
        ids = model.tokenizer(text)["input_ids"][:64]
        states = capture(model, torch.tensor([ids]), [1])[:, 0]
        values = encoder.encode(states, torch.tensor([list(range(8))]))[0]
        for latent in range(8):
            by_hand.setdefault(latent, []).append(values[1:, latent].max().item())
    for one in body["features"]:
        expected = sorted((v for v in by_hand[one["index"]] if v > 0), reverse=True)[:5]
        found = [max(example["values"]) for example in one["activations"]]
        assert found == pytest.approx(expected, rel=1e-4)
        assert 0 < one["density"] <= 1
        for example in one["activations"]:
            assert len(example["tokens"]) == len(example["values"]) <= 64
    silent_latents = {i for i, values in by_hand.items() if max(values) <= 0}
    assert {one["index"] for one in body["features"]} == set(range(8)) - silent_latents


def test_requests_hold_128_features_at_most(golden_dir, run, tmp_path, monkeypatch):
    monkeypatch.setattr("selfie_adapters.labelling.neuronpedia_upload.FEATURES", 3)
    model = load_model(str(golden_dir / "model"), "float32")
    tiny_sae("standard", "blocks.1.hook_resid_post", d_in=model.d_model).save_model(tmp_path / "s")
    finished = open_run(run([row(i, f"label {i}") for i in range(8)]))
    out = tmp_path / "f.jsonl"
    count, _ = to_neuronpedia_upload(finished, out, "m", "s", model, str(tmp_path / "s"), PROMPTS)
    sizes = [len(body["features"]) for body in lines(out)]
    assert sum(sizes) == count > 3
    assert max(sizes) == 3


def test_the_sae_is_named_by_the_run_or_asked_for(run):
    finished = open_run(run())
    assert sae_of(finished, "demo") == "demo"
    with pytest.raises(ConfigError, match="--sae"):
        sae_of(finished, None)
    assert sae_of(open_run(run(source="release:l0")), None) == "release:l0"


def test_texts_are_lines(tmp_path):
    (tmp_path / "t.txt").write_text("one\n\n two\n", encoding="utf-8")
    assert read_prompts(tmp_path / "t.txt") == ["one", " two"]
    for content in (b"", b"\n \n", b"\xff\xfe\x00"):
        (tmp_path / "t.txt").write_bytes(content)
        with pytest.raises(DataError, match=r"t\.txt"):
            read_prompts(tmp_path / "t.txt")
    with pytest.raises(MissingFileError):
        read_prompts(tmp_path / "missing.txt")
