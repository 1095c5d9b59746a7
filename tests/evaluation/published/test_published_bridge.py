"""Published bridge configurations and the filtered question file, against plain loops."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from selfie_adapters.cli import main
from selfie_adapters.errors import ConfigError, DataError
from selfie_adapters.evaluation.bridge.entities import names_entity
from selfie_adapters.evaluation.bridge.protocol import Bridge
from selfie_adapters.evaluation.published.bridge import read_bridge_config
from selfie_adapters.model import load_model
from selfie_adapters.sources.twohop import read_twohop

RESERVED = "<|reserved_special_token_0|>"
START = 3


def row(uid, bridge="France", **changes):
    return {
        "id": uid,
        "question": "The coin of France is",
        "entity_type": "currency",
        "correct_answer": "euro",
        "aliases": ["euro", "Euro"],
        "category": "c",
        "fact_comp_type": "city-country-currency",
        "e1_value": "Paris",
        "e2_value": bridge,
        "e2_aliases": [bridge, "a"],
        "e3_value": "euro",
        "e2_prompt": "The country whose capital is Paris is",
        "e3_prompt": "The coin of France is",
        "model_e2_answer": "France",
        "model_e3_answer": "euro",
    } | changes


@pytest.fixture
def questions(tmp_path):
    document = {"summary": {"total_questions": 9}, "filtered_results": [row("q1"), row("q/2", "b")]}
    path = tmp_path / "twohopfact_filtered.json"
    path.write_text(json.dumps(document))
    return path


@pytest.fixture
def config(tmp_path, golden_dir, questions):
    """A published configuration; keys given are changed, None takes one out."""

    def config(method="trained", **changes):
        values = {
            "question_id": "q/2",
            "dataset_path": str(questions),
            "model_name": str(golden_dir / "model"),
            "selfie_method": method,
            "temperature": 0.7,
            "max_tokens": 4,
            "num_generations": 3,
            "batch_size": 4,
            "layers": [0, 2],
            "start_token_position": START,
            "output_dir": "./out",
            "device": "cpu",
            "seed": 42,
        }
        if method == "trained":
            adapter = golden_dir / "adapters/scalar_affine_norm.safetensors"
            values["adapter_checkpoint_path"] = str(adapter)
        else:
            values["scale"] = 10.0
        path = tmp_path / f"{method}.json"
        kept = {key: value for key, value in (values | changes).items() if value is not None}
        path.write_text(json.dumps(kept))
        return str(path)

    return config


def test_the_filtered_file_loads(questions):
    first, second = read_twohop(str(questions))
    assert (first.uid, second.uid) == ("q1", "q/2")
    assert first.prompt == "The coin of France is"
    assert first.bridge_prompt == "The country whose capital is Paris is"
    assert (first.e1, first.bridge.value, first.answer.value) == ("Paris", "France", "euro")
    assert first.bridge.aliases == ("France", "a")
    assert first.answer.aliases == ("euro", "Euro")
    assert first.category == "c"


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ({}, "filtered_results is {}"),
        ([3], r"filtered_results\[0\]: 3"),
        ([row("q"), row("q", question=None)], r"filtered_results\[1\]: question is missing"),
        ([row("q"), row("q")], r"filtered_results\[1\]: uid q"),
        ([row("q", e2_aliases=[1])], "holds 1"),
    ],
)
def test_a_damaged_filtered_file_is_named_with_the_row(tmp_path, results, message):
    path = tmp_path / "f.json"
    path.write_text(json.dumps({"filtered_results": results}))
    with pytest.raises(DataError, match=message):
        read_twohop(str(path))


@torch.no_grad()
def plain_texts(model, adapter, scale, question, tokens):
    """(layer, position) → what is written greedily about the state, by whole forward passes."""
    network, tokenizer = model.network, model.tokenizer

    def chat(text):
        turn = [{"role": "user", "content": text}]
        return tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)

    ids = tokenizer(chat(f"Complete the statement: {question}"), add_special_tokens=False).input_ids
    states = network(torch.tensor([ids]), output_hidden_states=True).hidden_states
    asked = chat(f'What is the meaning of "{RESERVED}"?') + f'The meaning of "{RESERVED}" is "'
    prompt = torch.tensor(tokenizer(asked, add_special_tokens=False).input_ids)
    table = network.get_input_embeddings()
    end = tokenizer.convert_tokens_to_ids("<|eot_id|>")
    found = {}
    for layer in (0, 1):
        for position in range(START, len(ids)):
            x = states[layer + 1][0, position]
            x = x / x.norm()
            soft = scale * x
            if adapter is not None:
                soft = adapter["log_scale"].exp() * x + adapter["bias"]
            embeds = table(prompt).clone()
            embeds[prompt == tokenizer.convert_tokens_to_ids(RESERVED)] = soft
            written = []
            while len(written) < tokens and written[-1:] != [end]:
                token = network(inputs_embeds=embeds[None]).logits[0, -1].argmax()
                written.append(int(token))
                embeds = torch.cat([embeds, table(token)[None]])
            text = tokenizer.decode(written, skip_special_tokens=True)
            found[layer, position] = text.strip()
    return found


@pytest.mark.parametrize("method", ["trained", "untrained"])
def test_every_state_is_read_as_published(method, config, tmp_path, golden_dir):
    """In float32, greedily: the labels are those of a plain loop, and so is what they name."""
    given = read_bridge_config(config(method, temperature=0.0, layers=[0, 1], num_generations=1))
    settings = given.settings.model_copy(update={"dtype": "float32"})
    model = load_model(golden_dir / "model", "float32")
    results = json.loads(Bridge.run(settings, tmp_path / "out", model).read_text())
    rows = map(json.loads, (tmp_path / "out/rows.jsonl").read_text().splitlines())
    (lead,) = [one for one in rows if one["key"] == f"{results['lead']}/q/2"]
    adapter = None
    if method == "trained":
        adapter = load_file(golden_dir / "adapters/scalar_affine_norm.safetensors")
    expected = plain_texts(model, adapter, 10.0, "The coin of France is", 4)
    for i, layer in enumerate(lead["layers"]):
        for k, position in enumerate(lead["positions"]):
            assert lead["texts"][i][k] == [expected[layer, position]]
            hit = names_entity(expected[layer, position], ["b", "a"])
            assert lead["hits"][i][k] == int(hit)
    assert len(expected) == sum(map(len, lead["texts"]))
    assert lead["positions"][0] == START


def run(*arguments: str) -> None:
    with contextlib.suppress(SystemExit):  # a finished command may or may not end the process
        main(arguments)


@pytest.mark.parametrize("method", ["trained", "vanilla"])
def test_the_command_runs_a_published_file(method, config, tmp_path, capsys):
    file = config(method, comment="mine", layers="all")
    device = ["--device", "cpu"] if method == "trained" else []
    run("eval", "bridge", "--config", file, "--out", str(tmp_path / "out"), *device)
    said = capsys.readouterr()
    assert "keys without a meaning here: comment" in said.out, said.err
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert results["settings"]["device"] == "cpu"
    lead = "trained" if method == "trained" else "untrained × 10"
    names = [one["condition"] for one in results["conditions"]]
    assert names == [lead, "zero vector"]  # what was asked for, and the control that costs little
    assert results["counts"]["read"] == 1
    short = json.loads((tmp_path / "out/results_qq_2.json").read_text())
    full = json.loads((tmp_path / "out/results_full_qq_2.json").read_text())
    assert short["layers"] == list(range(len(short["layers"])))
    assert short["start_pos"] == short["token_positions"][0] == START
    assert len(short["token_texts"]) == len(short["token_positions"])
    cells = {f"({i}, {p})" for i in short["layers"] for p in short["token_positions"]}
    assert set(short["match_fractions"]) == cells
    for key, texts in full["descriptions"].items():
        named = sum(names_entity(text, ["b", "a"]) for text in texts)
        assert len(texts) == 3
        assert short["match_fractions"][key] == pytest.approx(named / 3)
    assert short["question_data"]["id"] == "q/2"
    assert (tmp_path / "out/bridge.html").stat().st_size > 0
    assert (tmp_path / "out/heatmap_qq_2.png").read_bytes().startswith(b"\x89PNG\r\n")


def test_output_dir_is_the_folder_unless_another_is_given(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run("eval", "bridge", "--config", config(), "--device", "cpu")
    names = {"results.json", "results_qq_2.json", "results_full_qq_2.json", "heatmap_qq_2.png"}
    assert names <= {file.name for file in Path("out").iterdir()}
    assert not Path("results").exists()


@pytest.mark.parametrize("module", ["matplotlib", "jinja2"])
def test_what_the_figures_need_is_asked_for_before_any_work(module, config, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, module, None)
    run("eval", "bridge", "--config", config(model_name="no-such/model"), "--device", "cpu")
    assert f"selfie eval bridge needs the package {module}" in " ".join(
        capsys.readouterr().err.split()
    )


def test_the_parent_of_output_dir_must_exist(config, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run("eval", "bridge", "--config", config(output_dir="none/out", model_name="no-such/model"))
    said = " ".join(capsys.readouterr().err.split())
    assert "output_dir is none/out, and the folder none does not exist. Create it, or" in said
    assert not Path("none").exists()


def test_what_the_keys_mean(config, tmp_path):
    settings = read_bridge_config(config("traditional", layers=[3, 5], batch_size=128)).settings
    assert (settings.adapter, settings.untrained_scales) == (None, (10.0,))
    assert settings.untrained_scale_unit == "absolute"
    assert (settings.layers, settings.batch_size, settings.first_position) == ("3,5", 384, START)
    assert (settings.dtype, settings.seed, settings.limit) == ("bfloat16", 42, None)
    assert settings.only_answered is False
    assert read_bridge_config(config("trained", dataset_path=None)).settings.questions.endswith(
        "twohopfact_filtered.json"
    )
    changed = read_bridge_config(config(), ["question_id=q1"]).settings
    assert changed.question_id == "q1"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scale": None, "method": "untrained"}, "untrained needs scale"),
        ({"adapter_checkpoint_path": None}, "trained needs adapter_checkpoint_path"),
        ({"method": "magic"}, "selfie_method"),
        ({"num_generations": None}, "num_generations: missing"),
        ({"layers": []}, "layers is empty"),
        ({"layers": "some"}, "layers"),
        ({"question_id": None}, "question_id: missing"),
    ],
)
def test_what_is_incomplete_is_refused(config, changes, message):
    with pytest.raises(ConfigError, match=message):
        read_bridge_config(config(**changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"question_id": "q3"}, "question_id q3: not in .* Valid choices: q1"),
        ({"start_token_position": 900}, "first_position is 900"),
        ({"dataset_path": "none.json"}, "none.json"),
    ],
)
def test_what_the_file_does_not_hold_is_one_line(config, changes, message, tmp_path, golden_dir):
    settings = read_bridge_config(config(**changes)).settings
    with pytest.raises((ConfigError, FileNotFoundError), match=message):
        Bridge.run(settings, tmp_path / "out")
