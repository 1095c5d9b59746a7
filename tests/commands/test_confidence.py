"""Calibration over the golden model: half of the known labels are what it will write."""

from __future__ import annotations

import json
import re

import pytest
import torch

from selfie_adapters.adapters import load_adapter
from selfie_adapters.commands.confidence import fit
from selfie_adapters.dataset import Item, Section, save_dataset
from selfie_adapters.errors import ConfigError, DataError
from selfie_adapters.labelling import Confidence, Labeller
from selfie_adapters.model import load_model

COUNT = 60


@pytest.fixture
def adapter(golden_dir, tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes((golden_dir / "adapters/scalar_affine_norm.safetensors").read_bytes())
    return path


@pytest.fixture
def written(golden_dir, adapter):
    """Vectors, and the greedy labels the golden model writes about them."""
    vectors = torch.randn(COUNT, 48, generator=torch.Generator().manual_seed(0))
    labeller = Labeller(load_model(golden_dir / "model", "float32"), load_adapter(adapter))
    return vectors, [drawn[0] for drawn in labeller.label(vectors, max_new_tokens=3)]


def training_file(path, vectors, labels):
    metadata = {
        "dataset_name": "d",
        "filename": "d.safetensors",
        "layer": 1,
        "source": "s",
        "vector_type": "v",
    }
    items = [Item(i, [label], "val") for i, label in enumerate(labels)]
    save_dataset(path, [Section(metadata, vectors, items)])
    return path


def run(source, golden_dir, adapter, **options):
    fit(
        str(source),
        adapter=str(adapter),
        model=str(golden_dir / "model"),
        max_new_tokens=3,
        dtype="float32",
        controls=30,
        **options,
    )


def test_a_confidence_lands_beside_the_adapter_with_what_it_was_fitted_on(
    golden_dir, adapter, written, tmp_path, capsys
):
    vectors, labels = written
    # the half with the higher gain is "right": a law that the fit must find
    middle = sorted(label.gain for label in labels)[COUNT // 2]
    known = [label.text if label.gain >= middle else "something else" for label in labels]
    known = [text or "blank" for text in known]
    source = training_file(tmp_path / "d.json", vectors, known)
    figure = tmp_path / "reliability.svg"
    run(source, golden_dir, adapter, precision=0.8, control_rate=1.0, figure=str(figure))
    fitted = Confidence.load(tmp_path / "a.confidence.json")
    assert fitted.weights["gain"] > 0
    measured = fitted.measured
    right = sum(a.text.casefold() == b.casefold() for a, b in zip(labels, known, strict=True))
    assert (measured["vectors"], measured["right"]) == (COUNT, right)
    assert measured["shown_and_right"] / measured["shown"] >= 0.8
    assert {k: v["vectors"] for k, v in measured["controls"].items()} == {"random": 30, "zero": 1}
    assert fitted.settings["max_new_tokens"] == 3
    assert figure.read_text().startswith("<svg")
    shown = capsys.readouterr().out
    assert f"{right} of {COUNT} labels are right" in shown
    assert "zero: 0 of 1 shown" in shown or "zero: 1 of 1 shown" in shown
    said = re.search(r"AUROC (\S+), NLL (\S+), ECE (\S+)", shown.replace("\n", " "))
    assert said, shown
    for text, name in zip(said.groups(), ("auroc", "nll", "ece"), strict=True):
        assert float(text) == pytest.approx(measured[name], abs=0.005)
    assert "without agreement" not in shown  # one label per vector


def test_json_is_all_that_is_printed(golden_dir, adapter, written, tmp_path, capsys):
    vectors, labels = written
    middle = sorted(label.gain for label in labels)[COUNT // 2]
    known = [label.text if label.gain >= middle else "something else" for label in labels]
    source = training_file(tmp_path / "d.json", vectors, [text or "blank" for text in known])
    run(source, golden_dir, adapter, precision=0.8, control_rate=1.0, json=True)
    (line,) = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    assert found.pop("file") == str(tmp_path / "a.confidence.json")
    assert found == json.loads((tmp_path / "a.confidence.json").read_text())


def test_labels_that_are_all_wrong_cannot_calibrate(golden_dir, adapter, written, tmp_path):
    source = training_file(tmp_path / "d.json", written[0], ["never written"] * COUNT)
    with pytest.raises(DataError, match=f"0 of {COUNT} labels are right"):
        run(source, golden_dir, adapter, control_rate=0.5)
    assert not (tmp_path / "a.confidence.json").exists()


def test_vectors_without_labels_cannot_calibrate(golden_dir, adapter):
    with pytest.raises(DataError, match="give a training file"):
        run(golden_dir / "vectors.safetensors", golden_dir, adapter)


def sections_file(path, vectors, labels):
    """Three sections of one layer: two kinds of position and vectors without a concept."""
    third = COUNT // 3
    sections = []
    for number, (kind, position) in enumerate((("t", -1), ("t_at_name", "name"), ("n", "null"))):
        rows = slice(number * third, (number + 1) * third)
        metadata = {
            "dataset_name": kind,
            "filename": f"{kind}.safetensors",
            "layer": 1,
            "source": "s",
            "vector_type": "null" if position == "null" else "topic",
            "position": position,
        }
        items = [Item(i, [label], "val") for i, label in enumerate(labels[rows])]
        sections.append(Section(metadata, vectors[rows].clone(), items))
    save_dataset(path, sections)
    return path


def test_each_kind_of_position_is_fitted_with_the_vectors_without_a_concept(
    golden_dir, adapter, written, tmp_path, capsys
):
    vectors, labels = written
    known = [label.text or "blank" for label in labels]
    third = COUNT // 3
    known[third : 2 * third] = ["something else"] * third  # at the name nothing is right
    known[2 * third :] = ["nothing"] * third
    source = sections_file(tmp_path / "d.json", vectors, known)
    run(source, golden_dir, adapter, precision=0.3, control_rate=1.0)
    fitted = Confidence.load(tmp_path / "a.confidence.json")
    last, name = sorted(fitted.places, key=lambda place: str(place.position))
    assert [(p.layer, p.position) for p in (last, name)] == [(1, "-1"), (1, "name")]
    for place in (last, name):
        assert place.measured["vectors"] == 2 * third  # its own and those without a concept
        controls = {kind: c["vectors"] for kind, c in place.measured["controls"].items()}
        assert controls == {"no concept": third, "random": 30, "zero": 1}
    assert last.threshold is not None
    assert last.measured["right"] == third
    assert last.measured["shown_and_right"] / last.measured["shown"] >= 0.3
    assert name.threshold is None  # the common one is contradicted, or shows nothing either
    assert fitted.measured["vectors"] == COUNT
    shown = " ".join(capsys.readouterr().out.split())
    assert "layer 1 at name: nothing is shown: no threshold keeps 30% right" in shown
    assert f"layer 1 at -1: at confidence {last.threshold:.2f} and above" in shown


def near(measured):
    return json.loads(json.dumps(measured), parse_float=lambda digits: round(float(digits), 6))


def test_a_specialist_labels_its_place_and_what_holds_no_concept_there(
    golden_dir, adapter, written, tmp_path
):
    vectors, labels = written
    special = tmp_path / "a.layer_1_at_-1.safetensors"
    special.write_bytes((golden_dir / "adapters/full_rank_norm.safetensors").read_bytes())
    third = COUNT // 3
    labeller = Labeller(load_model(golden_dir / "model", "float32"), load_adapter(special))
    theirs = [drawn[0] for drawn in labeller.label(vectors[:third], max_new_tokens=3)]
    known = [label.text or "blank" for label in (*theirs, *labels[third:])]
    known[2 * third :] = ["nothing"] * third
    source = sections_file(tmp_path / "d.json", vectors, known)
    run(source, golden_dir, adapter, precision=0.3, control_rate=1.0)
    last, name = sorted(
        Confidence.load(tmp_path / "a.confidence.json").places, key=lambda one: str(one.position)
    )
    assert (last.measured["right"], name.measured["right"]) == (third, third)
    assert last.measured["vectors"] == name.measured["vectors"] == 2 * third
    special.unlink()  # the general adapter labels everything again
    run(source, golden_dir, adapter, precision=0.3, control_rate=1.0, out=str(tmp_path / "b.json"))
    alone = {one.position: one for one in Confidence.load(tmp_path / "b.json").places}
    assert alone["-1"].measured["right"] < third
    # Other vectors in the batches move the last digits of a probability.
    assert near(alone["name"].measured) == near(name.measured)


def test_a_limit_is_one_of_each_layer_and_position(golden_dir, adapter, written, tmp_path):
    vectors, labels = written
    source = sections_file(tmp_path / "d.json", vectors, [one.text or "blank" for one in labels])
    run(source, golden_dir, adapter, precision=0.2, control_rate=1.0, limit=12)
    places = Confidence.load(tmp_path / "a.confidence.json").places
    assert [place.measured["vectors"] for place in places] == [24, 24]  # and 12 without a concept
    with pytest.raises(ConfigError, match="--limit: .* found 0"):
        run(source, golden_dir, adapter, limit=0)


def test_an_answer_of_no_concept_is_silence(golden_dir, adapter, written, tmp_path):
    vectors, labels = written
    answer = labels[0].text
    silent = sum(label.text.casefold() == answer.casefold() for label in labels)
    loaded = load_adapter(adapter)
    bound = Labeller(load_model(golden_dir / "model", "float32"), loaded).binding
    loaded.binding = bound.model_copy(update={"no_concept": answer})
    loaded.save(adapter)
    known = [label.text or "blank" for label in labels]
    source = training_file(tmp_path / "d.json", vectors, known)
    run(source, golden_dir, adapter, precision=0.5, control_rate=1.0)
    measured = Confidence.load(tmp_path / "a.confidence.json").measured
    assert measured["no_concept"] == silent > 0
    assert measured["right"] + silent <= COUNT


def test_too_few_controls_are_refused_before_anything_is_labelled(
    golden_dir, adapter, written, tmp_path, monkeypatch
):
    source = training_file(tmp_path / "d.json", written[0], ["a"] * COUNT)
    monkeypatch.setattr("selfie_adapters.labelling.worker.ShardWorker.sampled", None)
    with pytest.raises(DataError, match=r"31 control vectors .* at least 73 are needed"):
        run(source, golden_dir, adapter)
    with pytest.raises(ConfigError, match="--precision: .* found 80"):
        run(source, golden_dir, adapter, precision=80)
    with pytest.raises(ConfigError, match="control rate 0"):
        run(source, golden_dir, adapter, control_rate=0.0)
