from __future__ import annotations

import json

import pytest

from selfie_adapters.cli import main
from selfie_adapters.files import write_text


@pytest.fixture
def folder(tmp_path):
    for name, losses in (("first", [3.0, 2.0]), ("second", [2.5, 1.5])):
        rows = [{"event": "step", "step": 1, "loss": losses[0]}]
        rows.append({"event": "validation", "step": 1, "val_loss": losses[1]})
        write_text(tmp_path / name / "metrics.jsonl", "".join(json.dumps(r) + "\n" for r in rows))
        write_text(tmp_path / name / "config.yaml", f"seed: {len(name)}\nmodel: {{name: '[m]'}}\n")
    return tmp_path


def run(*arguments):
    with pytest.raises(SystemExit) as ended:
        main(list(map(str, arguments)))
    return ended.value.code


def test_the_list_as_a_table_and_as_json(folder, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "250")
    assert run("runs", folder) == 0
    shown = capsys.readouterr().out
    assert shown.index("second") < shown.index("first")
    assert "1.5000" in shown
    assert "[m]" in shown  # names are text, not markup
    assert run("runs", folder, "--json") == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["best_val_loss"] for row in rows] == [1.5, 2.0]


def test_the_comparison_as_tables_and_as_json(folder, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "250")
    assert run("runs", "compare", folder / "first", folder / "second") == 0
    shown = capsys.readouterr().out
    assert "-0.5000" in shown  # both curves fall by half a nat
    assert "seed" in shown
    assert run("runs", "compare", folder / "first", folder / "second", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["config"] == {"seed": [5, 6]}
    assert found["validation"] == [[1, 2.0, 1.5]]


def test_without_runs_the_default_folder_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run("runs") == 1
    assert "runs: no such folder" in capsys.readouterr().err
