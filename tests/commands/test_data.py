from __future__ import annotations

import json

import pytest
import torch

from selfie_adapters.commands.data import inspect

META = {"dataset_name": "toy", "filename": "v.pt", "layer": 3, "source": "t", "vector_type": "x"}


def write(folder, items):
    torch.save(torch.tensor([[3.0, 4.0], [0.0, 0.0], [6.0, 8.0]]), folder / "v.pt")
    path = folder / "toy.json"
    path.write_text(json.dumps([{"metadata": META, "vectors": items}]))
    return path


def test_counts_lengths_duplicates_and_norms(tmp_path, capsys):
    items = [
        {"index": 0, "labels": ["cat", "a cat"], "split": "train"},
        {"index": 2, "labels": ["cat"], "split": "val"},
    ]
    inspect(str(write(tmp_path, items)), json=True)
    (section,) = json.loads(capsys.readouterr().out)["sections"]
    assert (section["rows"], section["d_model"]) == (3, 2)
    assert (section["labelled"], section["train"], section["val"]) == (2, 1, 1)
    assert (section["labels"], section["distinct_labels"]) == (3, 2)
    assert section["labels_per_vector"] == {"least": 1.0, "mean": 1.5, "greatest": 2.0}
    assert section["label_length"] == {"least": 3.0, "mean": 11 / 3, "greatest": 5.0}
    assert section["norm"] == {"least": 5.0, "mean": 7.5, "greatest": 10.0}
    assert section["most_repeated"] == [["cat", 2]]


def test_splits_are_counted_and_test_is_shown_where_there_is_one(tmp_path, capsys):
    items = [{"index": i, "labels": ["cat"], "split": s} for i, s in enumerate(["test", "train"])]
    path = str(write(tmp_path, [{**items[0], "index": 2}, {**items[1], "index": 0}]))
    inspect(path, json=True)
    (section,) = json.loads(capsys.readouterr().out)["sections"]
    assert (section["train"], section["val"], section["test"]) == (1, 0, 1)
    inspect(path)
    assert "2 (1 train, 0 val, 1 test)" in capsys.readouterr().out
    inspect(str(write(tmp_path, [{**items[1], "index": 0}])))
    assert "1 (1 train, 0 val)" in capsys.readouterr().out


def test_everything_that_is_wrong_is_shown_and_the_exit_code_says_so(tmp_path, capsys):
    items = [
        {"index": 1, "labels": ["dead"], "split": "train"},
        {"index": 7, "labels": ["far"], "split": "train"},
    ]
    with pytest.raises(SystemExit) as stopped:
        inspect(str(write(tmp_path, items)))
    assert stopped.value.code == 1
    shown = capsys.readouterr().out
    assert "7 is out of range" in shown
    assert "row 1" in shown
    assert "all zeros" in shown


def test_labels_of_a_broken_file_are_still_counted(tmp_path, capsys):
    items = [{"index": i, "labels": ["x"], "split": "nowhere"} for i in range(25)]
    with pytest.raises(SystemExit):
        inspect(str(write(tmp_path, items)))
    shown = capsys.readouterr().out
    assert "25 (1 distinct)" in shown
    assert "and 5 more" in shown
