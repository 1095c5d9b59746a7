"""`selfie label --text` and `--concept`: one state, labelled and printed, without files."""

from __future__ import annotations

import json
import time

import pytest
import torch
from safetensors.torch import save_file

from selfie_adapters.adapters import load_adapter
from selfie_adapters.commands.label import label
from selfie_adapters.errors import ConfigError, DataError, PromptError
from selfie_adapters.labelling import Labeller
from selfie_adapters.model import capture, load_model
from selfie_adapters.reading.look import concept_plan, text_plan


@pytest.fixture
def run(golden_dir, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    adapter = tmp_path / "a.safetensors"
    adapter.write_bytes((golden_dir / "adapters/scalar_affine_norm.safetensors").read_bytes())
    means = {"layer_0": torch.zeros(48), "layer_2": torch.full((48,), 0.1)}
    save_file(means, tmp_path / "a.mean.safetensors", {"chat": "none"})

    def run(**options):
        settings = {"adapter": str(adapter), "model": str(golden_dir / "model")}
        label(**{**settings, "dtype": "float32", "max_new_tokens": 6, **options})
        return capsys.readouterr().out

    return run


def test_the_labels_are_those_of_the_texts_last_token_minus_the_mean(run, golden_dir, tmp_path):
    shown = run(text=" an owl ")
    model = load_model(golden_dir / "model", "float32")
    labeller = Labeller(model, load_adapter(tmp_path / "a.safetensors"))
    plan = text_plan(model, "an owl", [0, 2], "none")
    ids = torch.tensor([[token.id for token in plan.tokens]])
    states = capture(model, ids, [0, 2], torch.tensor([len(plan.tokens) - 1]))[0]
    states = torch.stack([states[0], states[1] - 0.1])
    rows = labeller.label(states, max_new_tokens=6)
    lines = [line for line in shown.splitlines() if line.split()[:1] in (["0"], ["2"])]
    assert len(lines) == 2
    for line, (answer,) in zip(lines, rows, strict=True):
        assert f"{answer.gain:.2f}" in line
    assert "logit lens" in shown
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a.mean.safetensors",
        "a.safetensors",
    ]


def test_json_is_one_line_per_layer_and_nothing_else(run):
    rows = [json.loads(line) for line in run(text="an owl", json=True).splitlines()]
    assert [row["layer"] for row in rows] == [0, 2]
    assert {row["prompt"] for row in rows} == {"an owl"}
    assert all(isinstance(row["label"], str) for row in rows)


def test_one_layer_can_be_named(run):
    shown = run(text="owl", layer=2)
    assert [line.split()[0] for line in shown.splitlines()[2:3]] == ["2"]
    with pytest.raises(DataError, match=r"no mean vector layer_1; it holds layers 0, 2"):
        run(text="owl", layer=1)


@pytest.mark.parametrize("chat", ["none", "bare", "template"])
def test_the_token_is_the_last_one_of_the_text_in_each_chat_format(golden_dir, chat):
    model = load_model(golden_dir / "model", "float32")
    plan = text_plan(model, "the barn owl", [0], chat)
    assert plan.tokens[plan.positions[0]].text == "l"
    assert (plan.positions[0] == len(plan.tokens) - 1) is (chat == "none")


def test_a_concept_is_asked_for_and_read_at_the_end(golden_dir):
    model = load_model(golden_dir / "model", "float32")
    plan = concept_plan(model, " owl ", [0], "bare")
    assert plan.prompt == "Tell me about owl."
    assert plan.positions == (len(plan.tokens) - 1,)
    assert concept_plan(model, "owl", [0], "none", "What is {}?").prompt == "What is owl?"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"text": "a", "concept": "b"}, ConfigError, "give one of them"),
        ({"text": "a", "best_of": 3, "limit": 2}, ConfigError, "takes no --best-of, --limit"),
        ({"concept": "a", "source": "x.json"}, ConfigError, "takes no source"),
        ({"concept": "a", "out": "elsewhere"}, ConfigError, "takes no --out"),
        ({"text": "  "}, PromptError, "text is empty"),
        ({"concept": ""}, PromptError, "concept is empty"),
        ({"text": "a", "adapter": "none"}, ConfigError, "needs --adapter FILE"),
    ],
)
def test_what_makes_no_sense_is_refused(run, options, error, message):
    with pytest.raises(error, match=message):
        run(**options)


@pytest.mark.slow
def test_a_newcomer_sees_a_true_label(tmp_path, monkeypatch, capsys):
    load_model("demo")  # its dense copy is made once
    monkeypatch.chdir(tmp_path)
    began = time.process_time()
    label(concept="owl")
    label(text="The owl")
    assert time.process_time() - began < 60  # of every thread; seconds where nothing else runs
    shown = capsys.readouterr().out
    assert shown.count("owl") > 4
    assert list(tmp_path.iterdir()) == []
