"""What comes from outside is printed so that a terminal obeys none of it."""

from __future__ import annotations

import io
import json
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file

from selfie_adapters.cli import main
from selfie_adapters.commands.label_tables import show_controls
from selfie_adapters.commands.progress import steps_shown
from selfie_adapters.labelling import run_record
from selfie_adapters.output import json_line, visible

HOSTILE = "owl\x1b[2J\r\x9b1m\u202eeb\x07[/b]"
OBEYED = "\x1b\r\x9b\u202e\x07"


def run(*arguments: str) -> None:
    with pytest.raises(SystemExit):
        main(arguments)


def assert_harmless(shown: str) -> None:
    assert not {*OBEYED} & {*shown}
    assert "\\x1b[2J" in shown or "\\u001b[2J" in shown


@pytest.fixture
def training_file(tmp_path):
    save_file({"vectors": torch.ones(2, 3)}, tmp_path / "v.safetensors")
    about = {"dataset_name": HOSTILE, "filename": "v.safetensors", "layer": 1, "source": HOSTILE}
    items = [{"index": i, "labels": [HOSTILE], "split": "train"} for i in range(2)]
    path = tmp_path / "x.json"
    path.write_text(json.dumps([{"metadata": {**about, "vector_type": "t"}, "vectors": items}]))
    return str(path)


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_names_and_labels_of_a_training_file(form, training_file, capsys):
    run("data", "inspect", training_file, *form)
    shown = capsys.readouterr().out
    assert_harmless(shown)
    if form:
        json.loads(shown)


def test_an_error_that_quotes_them(tmp_path, capsys):
    run("data", "check", str(tmp_path / HOSTILE.replace("/", "")))
    assert_harmless(capsys.readouterr().err)


def test_tables_of_labels(tmp_path, monkeypatch):
    row = SimpleNamespace(
        kind="own", vectors=2, gain=0.5, confidence=None, concepts=None, example=HOSTILE
    )
    monkeypatch.setattr(run_record, "read_controls", lambda folder: [row])
    console = Console(file=io.StringIO(), width=200)
    show_controls(console, tmp_path)
    shown = console.file.getvalue()
    assert_harmless(shown)
    assert "[/b]" in shown  # brackets are no markup


def test_progress_lines():
    console = Console(file=io.StringIO(), width=200, force_terminal=True, color_system=None)
    with steps_shown(console) as progress:
        progress(HOSTILE, 1, 2)
    shown = console.file.getvalue()
    assert "\\x1b[2J\\r\\x9b1m\\u202eeb\\x07[/b]" in shown
    assert "\x1b[2J" not in shown


def test_line_breaks_stay_where_they_are_kept():
    assert visible("a\nb\r\n", keep="\n") == "a\nb\\r\n"


def test_json_holds_the_same_data():
    value = {"label": HOSTILE + "é 🙂 \U000e0041", "half": "\ud83d"}
    line = json_line(value)
    assert json.loads(line) == value
    assert "é 🙂" in line
    assert not {*OBEYED, "\U000e0041", "\ud83d"} & {*line}
