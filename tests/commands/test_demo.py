from __future__ import annotations

import json
import re
import sys
from types import ModuleType

import pytest
from rich.console import Console

from demo_results import CONDITIONS, measured, named, reading
from demo_results import results as made_up
from selfie_adapters.commands import demo_terminal
from selfie_adapters.commands.demo import demo
from selfie_adapters.commands.demo_report import write_results
from selfie_adapters.commands.demo_settings import LAST_TOKEN, QUICK, SENTENCE
from selfie_adapters.dataset import load_dataset
from selfie_adapters.errors import ConfigError
from selfie_adapters.files.json_lines import read_jsonl


def printed(show, *values):
    """What a terminal of 80 columns shows."""
    console = Console(width=80, record=True, file=sys.stdout)
    show(console, *values)
    text = console.export_text()
    assert max(len(line) for line in text.splitlines()) <= 80
    return text


def test_the_reading_is_a_row_per_token_with_silence_and_the_lens():
    lines = printed(demo_terminal.print_reading, reading()).splitlines()
    rows = [line.split() for line in lines[1:8]]
    assert rows[0] == ["The", "·", "iff", "·", "iff"]
    assert rows[1] == ["·Eiffel", "Eiffel", "Tower", "iff", "Eiffel", "Tower", "iff"]
    assert rows[2][:3] == ["·Tower", "a", "very"]
    assert rows[5] == [".", "·", "iff", "·", "iff"]  # below the threshold
    assert "\u202e" not in "".join(lines)


def test_pairs_are_marked_and_counted():
    text = printed(demo_terminal.print_pairs, named("adapter", 2, topics=6), 6)
    # two columns, read downwards
    assert re.search(r"✓ concept 0 → label 0 +✗ concept 3 → label 3", text)
    assert re.search(r"✓ concept 1 → label 1 +· a man-of-war of great size → ·", text)
    assert re.search(r"≈ concept 2 → label 2 +≈ owl → <script>", text)
    assert "6 concepts: 2 right, 2 related, 1 wrong, 1 silent." in text
    assert "\u202e" not in text


def test_labels_that_are_not_confident_enough_are_in_brackets():
    found = named("adapter", 2, topics=6, withheld=3)
    text = printed(demo_terminal.print_pairs, found, 6)
    assert "✗ concept 3 → [label 3]" in text
    assert "6 concepts: 2 right, 2 related, 1 wrong, 1 silent." in text
    words = " ".join(text.split())
    assert "In brackets: 1 below the threshold" in words
    assert "Shown 4: 2 right, 2 related." in words


def test_an_odd_number_of_pairs_has_all_of_them():
    text = printed(demo_terminal.print_pairs, named("adapter", 3, topics=8), 3)
    assert text.count("→") == 3
    assert "3 concepts: 3 right." in text
    assert "wrong" not in text


def test_conditions_are_rows_with_wilson_intervals():
    places = [measured(adapter=20, others=0), measured(LAST_TOKEN, adapter=10)]
    text = printed(demo_terminal.print_conditions, places)
    for condition in CONDITIONS:
        assert re.search(rf"│ {condition} +│", text)
    row = next(line for line in text.splitlines() if line.startswith("│ adapter "))
    # z² / (n + z²) is the width of Wilson's interval at 0 and 1: 3.84 / 23.84 = 16 %
    assert row.count("100 [84, 100]") == 2
    assert "50 [30, 70]" in row
    zero = next(line for line in text.splitlines() if line.startswith("│ zero vector "))
    assert "0 [0, 16]" in zero


def test_the_sentence_says_which_conditions_are_beaten():
    sentence = demo_terminal.comparison_sentence(measured(adapter=12, others=0, lens=11))
    beaten, others = sentence.split("; it does NOT beat ")
    assert beaten.startswith("Block 12, the concept's own token: the adapter beats zero")
    assert "beats zero vector (+60 [+" in beaten
    assert "ridge probe" in beaten
    assert re.fullmatch(r"logit lens \(\+5 \[-\d+, \+\d+\]\)\.", others)
    every = demo_terminal.comparison_sentence(measured(adapter=20, others=0, lens=0))
    assert "NOT" not in every
    none = demo_terminal.comparison_sentence(measured(adapter=0, others=0, lens=0))
    assert "adapter does NOT beat zero vector (+0" in none
    assert " beats " not in none


def test_the_written_files_hold_every_number_and_label(tmp_path):
    found = made_up(tmp_path)
    page = write_results(tmp_path, found)
    stored = json.loads((tmp_path / "results.json").read_text())
    assert [place["layer"] for place in stored["places"]] == [12, 24]
    for place in stored["places"]:
        assert [one["condition"] for one in place["conditions"]] == list(CONDITIONS)
    assert stored["places"][0]["conditions"][0]["share"]["right"]["mean"] == 12 / 20
    assert stored["training"]["validation"] == {"2": 3.25, "3": 2.75}
    rows = read_jsonl(tmp_path / "labels.jsonl")
    assert len(rows) == 2 * len(CONDITIONS) * 20
    assert rows[0]["name"] == "concept 0"
    assert rows[0]["generated"] == "label 0"
    text = page.read_text(encoding="utf-8")
    assert "3.25 → 2.75 nats per token" in text
    again = write_results(tmp_path, found).read_text(encoding="utf-8")
    assert again == text


def test_train_is_the_long_training(tmp_path, monkeypatch):
    asked = []
    module = ModuleType("selfie_adapters.commands.demo_training")

    def train(folder, console, device):
        asked.append((folder, device))
        return folder / "adapter_final.safetensors"

    vars(module)["train_demo_adapter"] = train
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr("selfie_adapters.model.load_model", None)  # nothing else is done
    demo(out=str(tmp_path / "out"), train=True, device="cpu")
    assert asked == [(tmp_path / "out", "cpu")]


def test_a_file_in_the_way_is_said_before_the_model_is_loaded(tmp_path, monkeypatch):
    (tmp_path / "demo").touch()
    monkeypatch.setattr("selfie_adapters.model.load_model", None)
    with pytest.raises(ConfigError, match="is a file"):
        demo(out=str(tmp_path / "demo"))


def check_files(folder):
    """What the demo leaves, by counts that its size fixes; its results."""
    dataset = load_dataset(folder / "topics.json")
    assert len(dataset.labelled("train")) == QUICK.train
    assert len(dataset.labelled("val")) == QUICK.val
    metrics = read_jsonl(folder / "run/metrics.jsonl")
    steps = [row["step"] for row in metrics if row["event"] == "step"]
    assert steps == [*range(1, QUICK.steps + 1)]
    labels = read_jsonl(folder / "labels.jsonl")
    assert len(labels) == 2 * len(CONDITIONS) * QUICK.test
    results = json.loads((folder / "results.json").read_text())
    assert results["reading"]["prompt"] == SENTENCE
    page = (folder / "report.html").read_text()
    assert not re.search(r'(src|href)="https?://', page)  # nothing is fetched when it is read
    return results, labels


@pytest.mark.slow
def test_the_quick_pass(tmp_path, capsys):
    folder = tmp_path / "out"
    demo(out=str(folder), quick=True)
    results, labels = check_files(folder)
    shown = capsys.readouterr().out
    cells = {(c["layer"], c["position"]): c for c in results["reading"]["cells"]}
    at_paris = results["reading"]["tokens"].index(" Paris")
    assert cells[12, at_paris]["label"].casefold() == "paris"
    own = [row for row in labels if row["condition"] == "adapter" and row["layer"] == 12]
    for row in own[: QUICK.pairs]:
        assert f"{row['name']} → " in shown
    share = {
        one["condition"]: one["share"]["right"]["mean"]
        for one in results["places"][0]["conditions"]
    }
    assert share["adapter"] > 0.2
    assert share["adapter"] > max(share["zero vector"], share["random"], share["logit lens"])
    demo(out=str(folder), quick=True)  # again: replaces, does not refuse
    again, _ = check_files(folder)
    assert again | {"seconds": 0} == results | {"seconds": 0}
