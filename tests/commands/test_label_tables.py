"""What `selfie label` ends with: labels beside the given ones, and what the controls mean."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from selfie_adapters.adapters import load_adapter
from selfie_adapters.commands.label import label
from selfie_adapters.dataset import load_dataset
from selfie_adapters.files.json_lines import read_jsonl
from selfie_adapters.labelling import Labeller
from selfie_adapters.labelling.controls import ControlScores
from selfie_adapters.labelling.export import to_csv, to_parquet
from selfie_adapters.labelling.finished_run import open_run
from selfie_adapters.labelling.run_record import write_controls
from selfie_adapters.labelling.summary import controls_sentence
from selfie_adapters.model import load_model

SAMPLE = Path(__file__).parents[2] / "data/sample/sample.json"


@pytest.fixture
def run(golden_dir, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")

    def run(source=SAMPLE, out="labels", **options):
        settings = {
            "adapter": str(golden_dir / "adapters/scalar_affine_norm.safetensors"),
            "model": str(golden_dir / "model"),
            "max_new_tokens": 8,
            "dtype": "float32",
            **options,
        }
        label(str(source), out=str(tmp_path / out), **settings)
        rows = read_jsonl(tmp_path / out / "labels-00000.jsonl")
        return rows, capsys.readouterr().out

    return run


@pytest.fixture
def known(run, tmp_path):
    """The sample with two labels replaced by what the golden model writes, in another case."""
    rows, _ = run(limit=6, out="first")
    content = json.loads(SAMPLE.read_text(encoding="utf-8"))
    section = content[0]
    for key in section["metadata"]:
        if key == "filename":
            section["metadata"][key] = str(SAMPLE.parent / section["metadata"][key])
    for number in (1, 3):
        assert section["vectors"][number]["index"] == rows[number]["index"]
        given = [f" {rows[number]['label'].upper()} ", "another"] if number == 1 else []
        section["vectors"][number]["labels"] = given or ["another", rows[number]["label"]]
    file = tmp_path / "known.json"
    file.write_text(json.dumps([section]), encoding="utf-8")
    return file


def test_labels_end_beside_the_given_ones(run, known):
    rows, shown = run(known, limit=6)
    items = load_dataset(known).labelled()
    assert [row["given"] for row in rows] == [item.labels[0] for item in items[:6]]
    assert [row["equal"] for row in rows] == [i in (1, 3) for i in range(6)]
    assert "Of 6 labels with a given one: 2 equal (33%), 4 different." in shown
    assert shown.count("✓") == 2
    *lines, path = shown.splitlines()  # the path is on one line, to be copied
    assert all(len(line) <= 80 for line in lines)
    assert path.startswith("6 vectors labelled: ")
    assert "nats per token, random directions" in " ".join(shown.split())


def test_the_finished_run_shows_them_again(run, known):
    run(known, limit=6)
    _, again = run(known, limit=6)
    assert "2 equal (33%)" in again
    assert "✓" in again


def test_csv_and_parquet_carry_the_given_label(run, known, tmp_path):
    import pyarrow.parquet

    rows, _ = run(known, limit=6)
    to_csv(open_run(tmp_path / "labels"), tmp_path / "l.csv")
    with (tmp_path / "l.csv").open(encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    assert [row["given"] for row in found] == [row["given"] for row in rows]
    assert [row["equal"] for row in found] == [str(row["equal"]) for row in rows]
    to_parquet(open_run(tmp_path / "labels"), tmp_path / "l.parquet")
    table = pyarrow.parquet.read_table(tmp_path / "l.parquet").to_pylist()
    assert [(row["given"], row["equal"]) for row in table] == [
        (row["given"], row["equal"]) for row in rows
    ]


def test_vectors_alone_have_no_given_label(run, golden_dir):
    rows, shown = run(golden_dir / "vectors.safetensors")
    assert "given" not in rows[0]
    assert "given" not in shown
    assert "generated" in shown


def test_no_concept_is_withheld_and_shown_on_demand(run, known, golden_dir, tmp_path):
    rows, _ = run(known, limit=6, out="plain")
    adapter = load_adapter(golden_dir / "adapters/scalar_affine_norm.safetensors")
    bound = Labeller(load_model(golden_dir / "model", "float32"), adapter).binding
    adapter.binding = bound.model_copy(update={"no_concept": rows[1]["label"]})
    path = str(adapter.save(tmp_path / "silent.safetensors"))
    silent, shown = run(known, limit=6, adapter=path)
    same = [row["label"].casefold() == rows[1]["label"].casefold() for row in rows]
    assert [row["concept"] for row in silent] == [not one for one in same]
    assert [row.get("withheld") for row in silent] == ["no concept" if s else None for s in same]
    assert all("confidence" not in row for row in silent)
    assert f"{sum(same)} withheld ({sum(same)} no concept)" in " ".join(shown.split())
    assert "·" in shown
    _, everything = run(known, limit=6, adapter=path, show_withheld=True)
    assert "·" not in everything
    assert [row.index for row in open_run(tmp_path / "labels").best()] == [
        row["index"] for row, s in zip(silent, same, strict=True) if not s
    ]


def controls(own, random):
    kinds = (("vectors of this run", own), ("random", random))
    return [ControlScores(k, len(g), sum(g) / len(g), None, None, "x", tuple(g)) for k, g in kinds]


def test_the_sentence_states_whether_the_labels_say_anything(tmp_path):
    low, high = [1.4, 1.5, 1.3, 1.6, 1.2, 1.4], [3.0, 3.1, 2.9, 3.3, 2.8, 3.0]
    write_controls(tmp_path, controls(high, low))
    assert "gain 3.02 nats per token, random directions 1.40" in controls_sentence(tmp_path)
    assert "depend on their vectors" in controls_sentence(tmp_path)
    for other in (low, high):
        write_controls(tmp_path, controls(low, other))
        assert controls_sentence(tmp_path).endswith(
            ": this does not show that the labels depend on their vectors."
        )
    write_controls(tmp_path, controls(low[:3], high[:3]))
    assert controls_sentence(tmp_path) == (
        "Too few vectors (3) to compare their gains with random directions."
    )
    assert controls_sentence(tmp_path / "none") is None
