from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from selfie_adapters.adapters import load_adapter
from selfie_adapters.commands.read import read
from selfie_adapters.errors import (
    AdapterError,
    BindingError,
    ConfigError,
    DataError,
    PromptError,
)
from selfie_adapters.files.json_lines import read_jsonl
from selfie_adapters.labelling import Labeller
from selfie_adapters.model import SoftPrompt, bind, load_model
from selfie_adapters.reading.read import read_prompt
from tiny_folders import nudge_weight

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(golden_dir, tmp_path):
    def run(prompt="an owl", out="out", **options):
        settings = {
            "adapter": str(golden_dir / "adapters/scalar_affine_norm.safetensors"),
            "model": str(golden_dir / "model"),
            "chat": "none",
            "dtype": "float32",
            "max_new_tokens": 30,
            **options,
        }
        read(prompt, out=str(tmp_path / out), **settings)
        return json.loads((tmp_path / out / "reading.json").read_text(encoding="utf-8"))

    return run


def test_the_command_writes_what_the_library_reads(run, golden_dir, tmp_path, capsys):
    content = run(layers="1:", positions="-2:")
    adapter = load_adapter(golden_dir / "adapters/scalar_affine_norm.safetensors")
    model = load_model(golden_dir / "model", "float32")
    found = read_prompt(model, adapter, "an owl", "1:", "-2:", chat="none")
    assert [(c["layer"], c["position"], c["label"]) for c in content["cells"]] == [
        (cell.layer, cell.position, cell.label) for cell in found.cells
    ]
    assert content["settings"]["layers"] == [1, 2]
    assert content["settings"]["positions"] == [4, 5]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "reading.html",
        "reading.json",
    ]
    shown = capsys.readouterr().out
    assert "layer 1" in shown
    assert "layer 2" in shown
    assert "4 cells: " in shown


def test_nothing_that_a_model_wrote_reaches_the_terminal_raw(run, capsys):
    content = run("\x1b]0;title\x07 owl")
    shown = capsys.readouterr().out
    assert any(ord(c) < 32 for cell in content["cells"] for c in cell["label"])  # stored whole
    assert not [c for c in shown if ord(c) < 32 and c != "\n"]


def test_a_finished_reading_is_not_read_again(run, monkeypatch, tmp_path):
    first = run(layers="0", positions="0")

    def never(*_a, **_k):
        raise AssertionError("read again")

    monkeypatch.setattr("selfie_adapters.reading.read.read_cells", never)
    assert run(layers="0", positions="0", find="owl") == first
    assert '"find": "owl"' in (tmp_path / "out/reading.html").read_text(encoding="utf-8")


def test_labels_are_shown_before_the_random_directions_are_labelled(run, monkeypatch, capsys):
    def stopped(*_arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("selfie_adapters.reading.controls.random_control", stopped)
    with pytest.raises(KeyboardInterrupt):
        run()
    assert "layer 0" in capsys.readouterr().out
    monkeypatch.undo()
    run()
    shown = capsys.readouterr().out
    assert shown.index("layer 0") < shown.index("random directions")


def test_the_layers_of_the_mean_are_the_default(run, tmp_path):
    mean = tmp_path / "mean.safetensors"
    save_file({"layer_2": torch.ones(48), "layer_0": torch.ones(48)}, mean)
    content = run(positions="-1", mean=str(mean))
    assert content["settings"]["layers"] == [0, 2]
    plain = run(positions="-1", layers="0,2", out="plain")
    assert [c["raw"] for c in content["cells"]] != [c["raw"] for c in plain["cells"]]


@pytest.mark.parametrize(
    ("prompt", "options", "error", "message"),
    [
        ("", {}, PromptError, "the prompt is empty"),
        ("<|eot_id|>", {}, PromptError, "only special tokens"),
        ("x" * 100_000, {}, PromptError, "100,000 tokens"),
        ("owl", {"layers": "9"}, ConfigError, "layers: 9 is out of range"),
        ("owl", {"mean": "nowhere.safetensors"}, FileNotFoundError, "nowhere"),
        ("owl", {"confidence": "nowhere.json"}, FileNotFoundError, "nowhere"),
    ],
)
def test_what_cannot_be_read_is_refused_and_leaves_nothing(
    run, tmp_path, prompt, options, error, message
):
    with pytest.raises(error, match=message):
        run(prompt, **options)
    assert not (tmp_path / "out").exists()


def test_an_adapter_of_another_model_is_refused(run, tmp_path):
    from selfie_adapters.adapters import create_adapter

    other = create_adapter("scale_only", 64).save(tmp_path / "other.safetensors")
    with pytest.raises(AdapterError, match=r"width 64.*d_model 48"):
        run(adapter=str(other))


def test_a_mean_of_another_model_is_refused(run, tmp_path):
    mean = tmp_path / "mean.safetensors"
    save_file({"layer_0": torch.ones(47)}, mean)
    with pytest.raises(DataError, match=r"layer_0.*\[47\]"):
        run(mean=str(mean))


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on_where_it_was(golden_dir, tmp_path):
    command = [
        *(sys.executable, "-c", "from selfie_adapters.cli import main; main()", "read"),
        *("x" * 120, "--adapter", golden_dir / "adapters/scalar_affine_norm.safetensors"),
        *("--model", golden_dir / "model", "--chat", "none", "--dtype", "float32"),
        *("--batch-size", "8"),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def start(out):
        return subprocess.Popen(
            [*command, "--out", tmp_path / out], env=environment, stdout=subprocess.DEVNULL
        )

    assert start("whole").wait(300) == 0
    kept = 0
    for _ in range(2):
        process = start("killed")
        cells = tmp_path / "killed/cells.jsonl"
        deadline = time.monotonic() + 120
        while not (cells.exists() and len(read_jsonl(cells)) > kept + 40):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        kept = len(read_jsonl(cells))
    first = cells.read_text(encoding="utf-8").splitlines()[:kept]
    assert start("killed").wait(300) == 0
    found, expected = (
        json.loads((tmp_path / out / "reading.json").read_text(encoding="utf-8"))["cells"]
        for out in ("killed", "whole")
    )
    assert [c["raw"] for c in found] == [c["raw"] for c in expected]
    assert found[: kept - 1] == [json.loads(line) for line in first[1:]]  # not read again


@pytest.fixture
def trained_on_plain_text(golden_dir, tmp_path):
    """An adapter file whose binding states that its vectors are from plain text."""
    model = load_model(golden_dir / "model", "float32")
    adapter = load_adapter(golden_dir / "adapters/scalar_affine_norm.safetensors")
    prompt = SoftPrompt.for_tokenizer(model.tokenizer).bind(model.tokenizer)
    adapter.binding = bind(model, prompt, 1).model_copy(update={"chat": "none"})
    adapter.save(tmp_path / "plain.safetensors")
    return str(tmp_path / "plain.safetensors")


def test_the_chat_format_is_that_of_the_training_vectors(run, trained_on_plain_text, capsys):
    only = {"adapter": trained_on_plain_text, "layers": "1", "positions": "-1"}
    assert run(chat=None, **only)["settings"]["chat"] == "none"
    assert "captured" not in capsys.readouterr().out
    assert run(chat="bare", out="bare", **only)["settings"]["chat"] == "bare"
    shown = " ".join(capsys.readouterr().out.split())
    assert "chat format 'bare', and the adapter's training vectors were captured in 'none'" in shown
    # an adapter that states nothing: the tokenizer's chat template
    assert run(chat=None, out="free", layers="1", positions="-1")["settings"]["chat"] == "template"


def test_a_mean_file_states_the_chat_format_where_the_adapter_does_not(run, tmp_path, capsys):
    mean = tmp_path / "mean.safetensors"
    save_file({"layer_1": torch.zeros(48)}, mean, {"chat": "bare", "position": "-1"})
    only = {"mean": str(mean), "positions": "-1"}
    assert run(chat=None, **only)["settings"]["chat"] == "bare"
    run(out="none", **only)
    assert "were captured in 'bare'" in " ".join(capsys.readouterr().out.split())


def test_a_prompt_of_ones_own_is_checked_against_the_binding(run, trained_on_plain_text):
    template = '<|begin_of_text|>"<|eot_id|>" is "'
    only = {"layers": "1", "positions": "-1"}
    with pytest.raises(PromptError, match="is 0 times in the template"):
        run(template=template, **only)
    own = template.replace("<|eot_id|>", "<|reserved_special_token_0|>")
    with pytest.raises(BindingError, match="prompt template"):
        run(template=own, adapter=trained_on_plain_text, **only)
    run(template=own, adapter=trained_on_plain_text, ignore_binding=True, **only)


def test_a_reading_resumes_with_the_same_weights_alone(run, golden_dir, tmp_path):
    model = Path(shutil.copytree(golden_dir / "model", tmp_path / "model"))
    options = {"model": str(model), "layers": "0,1", "positions": "-1", "max_new_tokens": 3}
    first = run(**options)
    whole = tmp_path / "out/reading.json"
    content = json.loads(whole.read_text(encoding="utf-8"))
    whole.write_text(json.dumps({**content, "cells": content["cells"][:1]}), encoding="utf-8")
    assert run(**options) == first  # the other cell is read again

    whole.write_text(json.dumps({**content, "cells": content["cells"][:1]}), encoding="utf-8")
    nudge_weight(model)
    with pytest.raises(ConfigError, match="holds a reading with weights_digest"):
        run(**options)
    assert run(**options, out="other")["cells"]


def test_silent_cells_are_shown_on_demand_and_always_stored(run, golden_dir, tmp_path, capsys):
    plain = run(layers="1", out="plain")["cells"]
    capsys.readouterr()
    answer = plain[0]["label"]
    adapter = load_adapter(golden_dir / "adapters/scalar_affine_norm.safetensors")
    model = load_model(golden_dir / "model", "float32")
    adapter.binding = Labeller(model, adapter).binding.model_copy(update={"no_concept": answer})
    path = str(adapter.save(tmp_path / "silent.safetensors"))
    silent = sum(cell["label"].casefold() == answer.casefold() for cell in plain)
    content = run(layers="1", adapter=path)
    assert [cell["label"] for cell in content["cells"]] == [cell["label"] for cell in plain]
    assert sum(cell["withheld"] == "no concept" for cell in content["cells"]) == silent
    shown = capsys.readouterr().out
    assert f"· withheld ({silent} no concept); --show-withheld shows them" in shown
    page = (tmp_path / "out/reading.html").read_text(encoding="utf-8")
    assert '"show_withheld": false' in page
    assert '"withholds": true' in page
    again = run(layers="1", adapter=path, show_withheld=True)
    assert again == content  # what is shown is no setting of the cells
    assert "dim withheld" in capsys.readouterr().out
    page = (tmp_path / "out/reading.html").read_text(encoding="utf-8")
    assert '"show_withheld": true' in page


def test_the_lens_stands_under_each_label_and_belongs_to_the_settings(run, tmp_path, capsys):
    content = run(layers="2", lens=True)
    words = [cell["lens"] for cell in content["cells"]]
    assert all(isinstance(word, str) for word in words)
    assert "the logit lens's word" in capsys.readouterr().out
    page = (tmp_path / "out/reading.html").read_text(encoding="utf-8")
    assert "small word under a label" in page
    with pytest.raises(ConfigError, match="holds a reading with lens"):
        run(layers="2")


def test_a_token_without_a_mean_is_refused_before_anything_is_written(run, tmp_path):
    mean = tmp_path / "mean.safetensors"
    save_file({"layer_1_at_-1": torch.ones(48), "layer_1_at_-2": torch.zeros(48)}, mean)
    with pytest.raises(DataError, match=r"no mean for token 0 of 6 .*layer_1_at_name"):
        run(mean=str(mean))
    assert not (tmp_path / "out").exists()
    assert len(run(mean=str(mean), positions="-2:")["cells"]) == 2


def test_without_a_folder_the_reading_stays_in_the_terminal(
    golden_dir, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    read(
        "an owl",
        adapter=str(golden_dir / "adapters/scalar_affine_norm.safetensors"),
        model=str(golden_dir / "model"),
        chat="none",
        layers="1",
        max_new_tokens=4,
    )
    shown = capsys.readouterr().out
    assert "layer 1" in shown
    assert "--out FOLDER keeps the reading" in shown
    assert not list(tmp_path.iterdir())


def test_json_is_what_reading_json_holds(run, tmp_path, capsys):
    written = run(json=True)
    (line,) = capsys.readouterr().out.splitlines()[:1]
    assert json.loads(line) == written


def test_the_mean_beside_the_adapter_is_subtracted_unless_another_is_named(
    run, golden_dir, tmp_path
):
    adapter = tmp_path / "mine.safetensors"
    shutil.copy(golden_dir / "adapters/scalar_affine_norm.safetensors", adapter)
    loaded = load_adapter(adapter)
    generator = torch.Generator().manual_seed(0)
    for name in ("mine.mean", "other"):
        mean = torch.randn(loaded.dim, generator=generator)
        save_file({"layer_1": mean}, tmp_path / f"{name}.safetensors")
    own = run(out="own", adapter=str(adapter))  # the layers that the file has
    named = run(out="named", adapter=str(adapter), mean=str(tmp_path / "mine.mean.safetensors"))
    other = run(out="other", adapter=str(adapter), mean=str(tmp_path / "other.safetensors"))
    assert {cell["layer"] for cell in own["cells"]} == {1}
    assert own["cells"] == named["cells"]
    assert own["cells"] != other["cells"]
    model = load_model(golden_dir / "model", "float32")
    found = read_prompt(model, loaded, "an owl", chat="none")
    assert [cell.gain for cell in found.cells] == [cell["gain"] for cell in own["cells"]]


def test_another_model_than_the_demo_needs_an_adapter(golden_dir):
    with pytest.raises(ConfigError, match="needs --adapter FILE"):
        read("an owl", model=str(golden_dir / "model"))
