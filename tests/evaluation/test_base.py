"""What all protocols have from the base, and the example of CONTRIBUTING.md as it is printed."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

import selfie_adapters.config.evaluation as all_settings
import selfie_adapters.evaluation as all_protocols
from selfie_adapters.commands.eval import _command
from selfie_adapters.config.evaluation import settings_of_protocols
from selfie_adapters.errors import ConfigError, DataError, FolderInUseError
from selfie_adapters.evaluation.base import find_protocol, protocol_names
from selfie_adapters.evaluation.tables import shown
from selfie_adapters.files.json_lines import read_jsonl
from selfie_adapters.files.locking import folder_lock

ROOT = Path(__file__).parents[2]


@pytest.fixture
def length(tmp_path, monkeypatch):
    """The protocol of CONTRIBUTING.md, added as two files."""
    text = (ROOT / "CONTRIBUTING.md").read_text().partition("## How to add an evaluation")[2]
    settings, protocol = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[:2]
    (tmp_path / "config").mkdir()
    (tmp_path / "config/length.py").write_text(settings)
    (tmp_path / "evaluation/length").mkdir(parents=True)
    (tmp_path / "evaluation/length/__init__.py").write_text('"""Words of labels."""\n')
    (tmp_path / "evaluation/length/protocol.py").write_text(protocol)
    monkeypatch.setattr(
        all_settings, "__path__", [*all_settings.__path__, str(tmp_path / "config")]
    )
    monkeypatch.setattr(
        all_protocols, "__path__", [*all_protocols.__path__, str(tmp_path / "evaluation")]
    )
    yield find_protocol("length")
    for name in [name for name in sys.modules if ".evaluation.length" in name]:
        del sys.modules[name]


def test_the_example_of_the_guide_is_a_command_that_resumes(length, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("labels.json").write_text(json.dumps({"1": "a night bird", "2": "tin", "3": "two words"}))
    command = _command("length", settings_of_protocols()["length"])
    assert (command.__doc__ or "").startswith("Count the words of labels. Stopped, it resumes")
    command(labels="labels.json", out="out")
    printed = capsys.readouterr().out
    results = json.loads(Path("out/results.json").read_text())
    assert results["protocol"] == "length"
    assert results["settings"] == {"labels": "labels.json"}
    assert results["words"]["mean"] == 2.0
    assert f"words per label: {shown(results['words'])}" in printed
    assert results["words"]["low"] < 2 < results["words"]["high"]

    command(labels="labels.json", out="out", json=True)
    assert json.loads(capsys.readouterr().out) == results
    before = Path("out/rows.jsonl").read_bytes()
    command(labels="labels.json", out="out")  # nothing is measured again
    assert Path("out/rows.jsonl").read_bytes() == before
    Path("out/rows.jsonl").write_text('{"key": "labels/0", "words": [3, 1, 9]}\n')
    command(labels="labels.json", out="out")  # what is there is taken
    assert json.loads(Path("out/results.json").read_text())["words"]["mean"] == pytest.approx(
        13 / 3
    )
    Path("out/rows.jsonl").write_text('{"key": "labels/0", "words": [3, 1]}\n')
    with pytest.raises(DataError, match="labels/0 has 2 results; 3 are expected"):
        command(labels="labels.json", out="out")
    Path("out/rows.jsonl").write_text('{"key": "labels/0", "words": "three"}\n')
    with pytest.raises(DataError, match=r"rows.jsonl, line 1: not a row of this evaluation"):
        command(labels="labels.json", out="out")
    Path("labels.json").write_text(json.dumps({"1": "other"}))
    with pytest.raises(ConfigError, match="labels"):
        command(labels="labels.json", out="out")


def test_a_folder_in_use_is_left_alone(length, tmp_path):
    (tmp_path / "labels.json").write_text(json.dumps({"1": "tin"}))
    settings = length.settings_class(labels=str(tmp_path / "labels.json"))
    with folder_lock(tmp_path / "out"), pytest.raises(FolderInUseError):
        length.run(settings, tmp_path / "out")
    length.run(settings, tmp_path / "out")
    assert read_jsonl(tmp_path / "out/rows.jsonl") == [{"key": "labels/0", "words": [1]}]


@pytest.mark.parametrize("name", protocol_names())
def test_every_protocol_is_complete(name):
    protocol = find_protocol(name)
    assert protocol.name() == name
    kind = settings_of_protocols()[name]
    assert protocol.settings_class is kind
    assert {*protocol.free} <= {*kind.model_fields}
    assert (kind.__doc__ or "").partition("\n\n")[0].endswith(".")
    assert f"eval {name}" in (ROOT / "docs/metrics.md").read_text()


def test_settings_and_protocols_have_the_same_names():
    assert [*settings_of_protocols()] == protocol_names()
    with pytest.raises(ConfigError, match='Did you mean "retrieval"'):
        find_protocol("retreival")


def test_intervals_are_printed_with_their_ends():
    found = {"mean": 0.414, "low": 0.35, "high": 0.47}
    assert shown(found) == "0.41 [0.35, 0.47]"
    assert shown(found, 0, 100, "+") == "+41 [+35, +47]"
    assert shown(None) == "–"
