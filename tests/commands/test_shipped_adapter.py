"""The adapter that comes with the package, as it is used."""

from __future__ import annotations

import pytest

from selfie_adapters.adapters import find_adapter_file, load_adapter
from selfie_adapters.adapters.locating import mean_beside, shipped, shipped_concepts
from selfie_adapters.commands.label import label
from selfie_adapters.dataset import load_dataset
from selfie_adapters.errors import DataError
from selfie_adapters.files.json_lines import read_jsonl
from selfie_adapters.labelling.centering import mean_kinds, mean_layers
from selfie_adapters.labelling.confidence import Confidence, confidence_file
from selfie_adapters.model import load_model
from selfie_adapters.reading.means import read_means
from selfie_adapters.reading.read import read_prompt
from selfie_adapters.sources.topics.reading import packaged_topics

LAYERS = [8, 12, 16, 20, 24, 28]
SMALL = "demo-block24"


def test_adapter_means_calibration_and_card_belong_together():
    file = find_adapter_file("demo")
    adapter = load_adapter("demo")
    assert adapter.kind == "full_rank"
    assert adapter.binding is not None
    assert (adapter.binding.model, adapter.binding.no_concept) == ("demo", "nothing")
    assert mean_layers(mean_beside(file)) == LAYERS
    confidence = Confidence.load(confidence_file(file))
    assert {(p.layer, p.position) for p in confidence.places} == {
        (layer, kind) for layer in LAYERS for kind in ("-1", "name")
    }
    card = file.with_suffix(".md").read_text(encoding="utf-8")
    assert "scripts/ship_adapter.py" in card
    assert "logit lens" in card


def test_the_small_adapter_is_577_numbers_for_one_block():
    file = find_adapter_file(SMALL)
    adapter = load_adapter(SMALL)
    assert (adapter.kind, sum(one.numel() for one in adapter.parameters())) == (
        "scalar_affine",
        577,
    )
    assert adapter.binding is not None
    assert (adapter.binding.model, adapter.binding.layer) == ("demo", 24)
    assert adapter.binding.no_concept == "nothing"
    assert mean_layers(mean_beside(file)) == [24]
    assert mean_kinds(mean_beside(file), 24) == mean_kinds(
        mean_beside(find_adapter_file("demo")), 24
    )
    card = file.with_suffix(".md").read_text(encoding="utf-8")
    assert f"scripts/ship_adapter.py --adapter {SMALL}" in card
    assert "logit lens" in card


def test_its_calibration_is_for_its_block_alone():
    confidence = Confidence.load(confidence_file(find_adapter_file(SMALL)))
    assert {(p.layer, p.position) for p in confidence.places} == {(24, "-1"), (24, "name")}


def test_a_reading_at_another_block_states_which_it_is_for():
    mean = mean_beside(find_adapter_file(SMALL))
    with pytest.raises(DataError, match="no mean vector layer_12; it holds layers 24. Read those"):
        read_means(mean, [12], 576)


def test_everything_shipped_takes_less_than_six_megabytes():
    folder = find_adapter_file("demo").parent
    assert set(shipped()) == {"demo", SMALL}
    assert sum(path.stat().st_size for path in folder.iterdir()) < 6e6


@pytest.mark.parametrize(("adapter", "layer", "position"), [("demo", 16, "name"), (SMALL, 24, -1)])
def test_the_vectors_for_a_first_look_are_of_test_nouns(adapter, layer, position):
    dataset = load_dataset(shipped_concepts(adapter))
    (section,) = dataset.sections
    assert (section.layer, section.metadata["position"]) == (layer, position)
    test = {topic.title for topic in packaged_topics() if topic.split == "test"}
    names = {item.labels[0] for item in dataset.labelled()}
    assert len(names) == 40
    assert names <= test


@pytest.mark.slow
def test_a_sentence_is_read_at_its_concepts_and_silent_elsewhere():
    reading = read_prompt(
        load_model("demo"),
        load_adapter("demo"),
        "The capital of France is Paris, but the Eiffel Tower was built by an engineer.",
        layers=[12],
    )
    said = {
        reading.plan.tokens[cell.position].text.strip(): cell.label
        for cell in reading.cells
        if cell.withheld is None
    }
    assert said == {
        "capital": "capital",
        "France": "France",
        "Paris": "Paris",
        "iffel": "Eiffel Tower",
        "engineer": "engineer",
    }


@pytest.mark.slow
def test_label_needs_no_option(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    label()
    rows = read_jsonl(tmp_path / "labels/labels-00000.jsonl")
    assert len(rows) == 40
    shown = [row for row in rows if row["concept"]]
    assert sum(row["equal"] for row in shown) > 0.7 * len(shown)
    assert "40 vectors labelled" in capsys.readouterr().out


@pytest.mark.slow
def test_the_small_adapter_labels_vectors_of_its_block(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    label(adapter=SMALL)
    rows = read_jsonl(tmp_path / "labels/labels-00000.jsonl")
    assert {row["dataset"] for row in rows} == {f"{SMALL}.concepts@l24"}
    assert len(rows) == 40
    assert sum(row["equal"] for row in rows) >= 4
    assert "40 vectors labelled" in capsys.readouterr().out
