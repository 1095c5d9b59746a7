from __future__ import annotations

import json
import re

import pytest

from selfie_adapters.commands import demo_report
from selfie_adapters.commands.demo import demo
from selfie_adapters.dataset import load_dataset
from selfie_adapters.errors import ConfigError
from selfie_adapters.json_lines import read_jsonl

CONDITIONS = ["trained", "zero vector", "shuffled", "random", "untrained"]


def check_files(folder, topics, held_out, steps):
    """What the demo leaves, by counts that its size fixes."""
    dataset = load_dataset(folder / "topics.json")
    assert len(dataset.labelled()) == topics
    assert len(dataset.labelled("val")) == held_out
    labels = read_jsonl(folder / "labels.jsonl")
    assert [row["concept"] for row in labels] == [
        item.labels[0] for item in dataset.labelled("val")
    ]
    metrics = read_jsonl(folder / "run/metrics.jsonl")
    assert [row["step"] for row in metrics if row["event"] == "step"] == [*range(1, steps + 1)]
    results = json.loads((folder / "results.json").read_text())
    assert [row["condition"] for row in results] == CONDITIONS
    page = (folder / "report.html").read_text()
    for row in results:
        assert f"{row['loss']['mean']:.2f}" in page
    assert not re.search(r'(src|href)="https?://', page)  # nothing is fetched when it is read
    return {row["condition"]: row for row in results}


@pytest.mark.slow
def test_the_quick_way_through(tmp_path, capsys):
    folder = tmp_path / "out"
    demo(out=str(folder), quick=True)
    results = check_files(folder, 800, 60, 12)
    assert results["zero vector"]["gain_at_1"]["mean"] == pytest.approx(1 / 60)
    shown = capsys.readouterr().out
    for condition in CONDITIONS:
        assert re.search(rf"│ {condition} +│", shown)
    demo(out=str(folder), quick=True)  # again: replaces, does not refuse
    assert check_files(folder, 800, 60, 12) == results


@pytest.mark.slow
def test_the_demo_shows_that_the_adapter_reads_the_vector(tmp_path, capsys):
    demo(out=str(tmp_path / "out"))
    results = check_files(tmp_path / "out", 4000, 120, 45)
    trained = results["trained"]
    assert trained["gain_at_1"]["mean"] > 0.7
    for name in CONDITIONS[1:]:
        assert trained["loss"]["high"] < results[name]["loss"]["low"]
        assert trained["gain_at_1"]["low"] > results[name]["gain_at_1"]["high"]
    assert "beats every control beyond its interval" in " ".join(capsys.readouterr().out.split())


def test_a_file_in_the_way_is_said_before_the_model_is_loaded(tmp_path, monkeypatch):
    (tmp_path / "demo").touch()
    monkeypatch.setattr("selfie_adapters.model.load_model", None)
    with pytest.raises(ConfigError, match="is a file"):
        demo(out=str(tmp_path / "demo"))


def test_the_verdict_says_which_control_was_not_beaten():
    from selfie_adapters.evaluation import ConditionResult
    from selfie_adapters.evaluation.statistics import Interval

    def result(condition, loss, gain):
        interval = Interval(loss, loss - 0.1, loss + 0.1, 60)
        recall = Interval(gain, gain - 0.05, gain + 0.05, 60)
        return ConditionResult(condition, "", interval, recall, recall, recall, recall)

    trained = result("trained", 1.0, 0.9)
    good, close = result("zero vector", 3.0, 0.02), result("shuffled", 1.15, 0.1)
    assert "beats every control" in demo_report.verdict([trained, good])
    assert "does NOT beat shuffled beyond" in demo_report.verdict([trained, good, close])
