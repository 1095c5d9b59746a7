"""`selfie eval naming`: tables, figure, rows, and what it refuses."""

from __future__ import annotations

import json
import re
import sys

import pytest

from naming_data import NAMES, write_naming_data
from selfie_adapters.cli import main
from selfie_adapters.evaluation import controls
from selfie_adapters.files.json_lines import read_jsonl


def run(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert not ended.value.code


@pytest.fixture
def command(golden_dir, tmp_path, monkeypatch):
    """Arguments of the command on a training file for the golden model."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setattr(controls, "MAX_NEW_TOKENS", 3)
    write_naming_data(tmp_path)
    adapter = str(golden_dir / "adapters/full_rank_norm.safetensors")
    model = str(golden_dir / "model")
    return [
        *("eval", "naming", "own.json", "--model", model, "--adapter", adapter),
        *("--dtype", "float32"),
    ]


def test_tables_figure_and_rows(command, tmp_path, capsys):
    run(command)
    shown = capsys.readouterr().out
    for text in (
        "last token of the prompt, 6 topics",
        "the concept's own token, 6 topics",
        "last token of the prompt, all blocks, compared",
        "vectors without a concept that show a label: 100 [68, 100] % of 8",
        "results/naming/results.json",
    ):
        assert text in shown
    rows = [
        [cell.strip() for cell in re.split(r"\s{2,}", line.strip())] for line in shown.split("\n")
    ]
    assert ["shown", "100 [61, 100]"] in rows
    assert ["zero vector", "+0 [-39, +39]", "+0 [-39, +39]"] in rows
    folder = tmp_path / "results/naming"
    assert (folder / "naming.svg").read_text().startswith("<svg")
    rows = read_jsonl(folder / "labels.jsonl")
    assert {row["name"] for row in rows} == {*NAMES[:6], None}
    first = (folder / "results.json").read_bytes()

    run(command)  # everything is there: the same results
    assert (folder / "results.json").read_bytes() == first
    assert json.loads(first)["settings"]["split"] == "test"


def test_without_matplotlib_there_are_results_and_no_figure(command, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    run([*command, "--limit", "2", "--layers", "0", "--out", "here"])
    assert "no figure" in capsys.readouterr().out
    assert not (tmp_path / "here/naming.svg").exists()
    assert json.loads((tmp_path / "here/results.json").read_text())["without_concept"] is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--split", "tset"], "tset"),
        (["--limit", "0"], "limit"),
        (["--retrieval", "-1"], "retrieval"),
        (["--layers", "7"], "--layers: 7 is out of range"),
        (["--device", "cuda:9"], "cuda:9"),
    ],
)
def test_what_makes_no_sense_is_refused(command, options, message, capsys):
    with pytest.raises(SystemExit) as ended:
        main([*command, *options])
    assert ended.value.code != 0
    shown = capsys.readouterr()
    assert message in shown.err + shown.out
    assert "Traceback" not in shown.err + shown.out


def test_only_the_demo_model_has_an_adapter_of_its_own(command, capsys):
    place = command.index("--adapter")
    with pytest.raises(SystemExit):
        main([*command[:place], *command[place + 2 :]])
    assert "needs --adapter FILE" in " ".join(capsys.readouterr().err.split())


def test_vectors_of_another_model_are_refused(command, tmp_path, capsys):
    write_naming_data(tmp_path / "other", width=32)
    with pytest.raises(SystemExit):
        main([*command[:2], "other/own.json", *command[3:]])
    assert "vectors of width 32" in capsys.readouterr().err
