"""Exports of a run whose labels hold everything that could break a format."""

from __future__ import annotations

import csv
import gzip
import json

import pyarrow.parquet
import pytest
import torch
from safetensors.torch import load_file, save_file

from label_runs import NASTY, default_rows, row
from selfie_adapters.config.labelling import LabelSettings
from selfie_adapters.dataset import load_dataset
from selfie_adapters.errors import ConfigError, DataError, MissingFileError
from selfie_adapters.labelling.export import to_csv, to_parquet, to_training
from selfie_adapters.labelling.finished_run import open_run
from selfie_adapters.labelling.inputs import open_source
from selfie_adapters.labelling.neuronpedia import to_neuronpedia
from selfie_adapters.labelling.run_record import vectors_hash


def test_csv_gives_back_every_label_as_it_was(run, tmp_path):
    assert to_csv(open_run(run()), tmp_path / "labels.csv") == 15
    with (tmp_path / "labels.csv").open(encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    assert [r["label"] for r in found if r["rank"] == "0"] == [*NASTY, "not believed"]
    assert found[0]["seed"] == str(2**62 + 1)
    assert (found[-1]["index"], found[-1]["error"]) == ("7", "the vector holds NaN or infinity")


def test_parquet_gives_back_every_label_with_its_types(run, tmp_path):
    assert to_parquet(open_run(run()), tmp_path / "labels.parquet") == 15
    table = pyarrow.parquet.read_table(tmp_path / "labels.parquet")
    found = table.to_pylist()
    assert [r["label"] for r in found if r["rank"] == 0] == [*NASTY, "not believed"]
    assert found[0]["seed"] == 2**62 + 1
    assert found[0]["concept"] is False
    assert found[-1] == dict.fromkeys(table.column_names) | {
        "index": 7,
        "error": "the vector holds NaN or infinity",
    }


def test_neuronpedia_rows_hold_the_best_label_of_each_vector(run, tmp_path):
    out = tmp_path / "explanations.jsonl.gz"
    assert to_neuronpedia(open_run(run()), out, "llama3.1-8b", "19-res") == 6
    lines = gzip.decompress(out.read_bytes()).decode().strip("\n").split("\n")
    found = [json.loads(line) for line in lines]
    assert [r["description"] for r in found] == NASTY
    assert found[2] == {
        "modelId": "llama3.1-8b",
        "layer": "19-res",
        "index": "2",
        "description": NASTY[2],
        "typeName": "selfie-adapter",
        "explanationModelName": "selfie:m",
    }


def test_neuronpedia_rows_are_a_label_file_for_preparation(run, tmp_path):
    from selfie_adapters.sources import read_label_file

    out = tmp_path / "explanations.jsonl"
    to_neuronpedia(open_run(run()), out, "a", "b")
    found = read_label_file(out).labels
    assert (len(found), found[0], found[5]) == (6, [NASTY[0]], [NASTY[5]])


def test_a_training_file_holds_vectors_and_best_labels(run, vectors, tmp_path):
    with pytest.raises(ConfigError, match="which layer .* --layer"):
        to_training(open_run(run()), tmp_path / "t.json")
    assert to_training(open_run(run()), tmp_path / "out/t.json", layer=19) == 6
    dataset = load_dataset(tmp_path / "out/t.json")
    (section,) = dataset.sections
    assert section.id == "v@l19"
    found = {item.index: item.labels for item in section.items}
    assert found == {i: [label] for i, label in enumerate(NASTY)}
    assert torch.equal(section.vectors[:], vectors)
    assert sorted(item.split for item in section.items) == ["train"] * 5 + ["val"]


def test_a_training_files_own_splits_and_a_mean_are_kept(run, vectors, tmp_path):
    metadata = {
        "dataset_name": "mine",
        "filename": "v.safetensors",
        "layer": 2,
        "source": "s",
        "vector_type": "probe",
        "extra": 5,
    }
    items = [
        {"index": i, "labels": ["old"], "split": "val" if i % 2 else "train"} for i in range(8)
    ]
    (tmp_path / "in.json").write_text(json.dumps([{"metadata": metadata, "vectors": items}]))
    mean = torch.tensor([1.0, 2.0, 3.0, 4.0])
    save_file({"layer_2": mean}, tmp_path / "mean.safetensors")
    rows = [row(i, f"label {i}", dataset="mine@l2") for i in range(8)]
    folder = run(rows, source=str(tmp_path / "in.json"), mean=str(tmp_path / "mean.safetensors"))
    assert to_training(open_run(folder), tmp_path / "t.json") == 8
    (section,) = load_dataset(tmp_path / "t.json").sections
    assert section.metadata["extra"] == 5
    assert [(i.index, i.labels, i.split) for i in section.items] == [
        (i, [f"label {i}"], "val" if i % 2 else "train") for i in range(8)
    ]
    torch.testing.assert_close(load_file(tmp_path / "t_0.safetensors")["vectors"], vectors - mean)


def test_blank_labels_are_left_out_and_nothing_left_is_an_error(run, tmp_path):
    folder = run([row(0, ""), row(1, "kept"), row(5, "not", concept=False)])
    assert [r.label for r in open_run(folder).best()] == ["kept"]
    with pytest.raises(DataError, match="no vector has a label"):
        to_training(open_run(run([row(0, "")])), tmp_path / "t.json", layer=1)


def test_one_neuronpedia_source_takes_one_dataset(run, tmp_path):
    folder = run([row(0, "a", dataset="x@l1"), row(1, "b", dataset="y@l1")])
    with pytest.raises(ConfigError, match="several datasets"):
        to_neuronpedia(open_run(folder), tmp_path / "e.jsonl", "a", "b")
    assert not (tmp_path / "e.jsonl").exists()


def test_a_run_that_is_not_complete_says_what_is_missing(run):
    folder = run()
    (folder / "labels-00001.jsonl").unlink()
    found = open_run(folder)
    assert found.missing == 4
    assert {r.index for r in found.rows()} == {0, 1, 2, 3}


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(MissingFileError, match=r"config\.json"):
        open_run(tmp_path)
    for content in ("[]", "{}", '{"settings": {"source": 3}, "vectors": 1}', "not json"):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(DataError, match=r"config\.json"):
            open_run(tmp_path)


def test_a_count_that_is_damaged_is_no_reason_to_look_for_that_many_shards(run):
    folder = run()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vectors": 2**62}))
    found = open_run(folder)
    assert (len(found.shards), found.missing) == (2, 2**62 - 8)
    for count in (0, -1, True, 1.5, "8", None, [8]):
        (folder / "config.json").write_text(json.dumps({**config, "vectors": count}))
        with pytest.raises(DataError, match=r"config\.json: not a labelling run"):
            open_run(folder)


def damaged(folder, name="labels-00001.jsonl"):
    """The rows of a shard, and how to replace them."""
    path = folder / name
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    return rows, lambda new: path.write_text("".join(json.dumps(row) + "\n" for row in new))


def test_a_shard_that_lost_rows_or_has_others_is_named(run, tmp_path):
    folder = run()
    rows, write = damaged(folder)
    of_shard_0 = [{**row, "index": row["index"] % 4} for row in rows]
    cases = {
        r"has rows of 0 vectors; 4 are expected.*selfie label": [],
        r"has rows of 3 vectors; 4": rows[:-1],
        r"row 4 has 1 rows where the run's settings make 2": rows[1:],
        r"line 8: row 7 has this row already": [*rows, rows[-1]],
        r"row 0 is in labels-00000\.jsonl too": of_shard_0,
        r"has rows of 5 vectors; 4": [*rows, {"index": 99, "error": "e"}],
    }
    for message, content in cases.items():
        write(content)
        with pytest.raises(DataError, match=rf"labels-00001\.jsonl.*({message})"):
            to_csv(open_run(folder), tmp_path / "labels.csv")
        assert not (tmp_path / "labels.csv").exists()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("label", 5),
        ("label", None),
        ("index", "0"),
        ("index", -1),
        ("index", True),
        ("index", 2**63),
        ("seed", 2**63),
        ("seed", 1.5),
        ("gain", "1"),
        ("gain", float("nan")),
        ("log_prob", float("-inf")),
        ("ended", 1),
        ("rank", None),
        ("dataset", 3),
        ("tokens", []),
    ],
)
def test_a_row_with_a_value_of_another_kind_is_named_with_file_and_line(
    run, tmp_path, field, value
):
    folder = run()
    rows, write = damaged(folder)
    write([rows[0], {**rows[1], field: value}, *rows[2:]])
    for form in (to_csv, to_parquet):
        with pytest.raises(DataError, match=rf"labels-00001\.jsonl, line 2: .*{field}"):
            form(open_run(folder), tmp_path / "out")


def test_a_shard_that_is_no_text_or_no_file_is_named(run, tmp_path):
    folder = run()
    shard = folder / "labels-00001.jsonl"
    shard.write_bytes(b"\xff\xfe{}\n")
    with pytest.raises(DataError, match=r"labels-00001\.jsonl, line 1"):
        to_csv(open_run(folder), tmp_path / "labels.csv")
    shard.unlink()
    shard.mkdir()
    with pytest.raises(MissingFileError, match=r"labels-00001\.jsonl is a folder"):
        to_csv(open_run(folder), tmp_path / "labels.csv")
    shard.rmdir()
    shard.symlink_to(shard)
    with pytest.raises(MissingFileError, match="Too many levels of symbolic links"):
        to_csv(open_run(folder), tmp_path / "labels.csv")


def test_labels_are_not_written_with_vectors_that_changed_in_one_number(run, vectors, tmp_path):
    folder = run()
    config = json.loads((folder / "config.json").read_text())
    settings = LabelSettings.checked(**config["settings"])
    config["inputs"] = {"vectors": vectors_hash(open_source(settings))}
    (folder / "config.json").write_text(json.dumps(config))
    to_training(open_run(folder), tmp_path / "t.json", layer=1)
    vectors[5, 2] += 1e-6
    save_file({"v": vectors}, tmp_path / "v.safetensors")
    with pytest.raises(DataError, match=r"v\.safetensors: its vectors have changed"):
        to_training(open_run(folder), tmp_path / "t2.json", layer=1)


def test_a_damaged_binding_is_named_where_the_layer_is_looked_for(run, tmp_path):
    folder = run()
    for content in (b"\xff", b"[1]", b'{"model": 5}', b'{"layer": "x"}', b"[" * 9999):
        (folder / "binding.json").write_bytes(content)
        with pytest.raises(DataError, match=r"binding\.json"):
            to_training(open_run(folder), tmp_path / "t.json")


def test_rows_of_earlier_releases_whose_gain_is_called_score_are_read(run, tmp_path):
    rows = [
        {("score" if key == "gain" else key): value for key, value in one.items()}
        for one in default_rows()
    ]
    to_csv(open_run(run(rows, best_of=2, explain=True)), tmp_path / "labels.csv")
    with (tmp_path / "labels.csv").open(encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    assert {(r["gain"], r["score"]) for r in found[:-1]} == {("0.75", "0.75")}
