from __future__ import annotations

import json

import pytest
import torch

from selfie_adapters.commands.data import check, convert, merge, split
from selfie_adapters.dataset import load_dataset

META = {"dataset_name": "toy", "filename": "v.pt", "layer": 3, "source": "t", "vector_type": "x"}


def write(folder, splits, **metadata):
    torch.save(torch.eye(8), folder / "v.pt")
    items = [{"index": i, "labels": ["a", "b"], "split": s} for i, s in enumerate(splits)]
    path = folder / f"{metadata.get('dataset_name', 'toy')}.json"
    path.write_text(json.dumps([{"metadata": {**META, **metadata}, "vectors": items}]))
    return path


def test_what_will_train(tmp_path, capsys):
    check(str(write(tmp_path, ["train", "val", "train"])))
    assert capsys.readouterr().out == "will train: 6 labels, vectors of width 8\n"


def test_test_rows_are_neither_required_nor_enough(tmp_path, capsys):
    check(str(write(tmp_path, ["train", "val", "test"])))
    assert capsys.readouterr().out == "will train: 6 labels, vectors of width 8\n"
    with pytest.raises(SystemExit):
        check(str(write(tmp_path, ["train", "test"])))
    assert 'no vector has the split "val"' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        (["train", "nowhere"], "none of train, val, test"),
        (["train", "train"], 'no vector has the split "val". Try: selfie data split'),
        (["val"], 'no vector has the split "train"'),
        (["train"] * 8 + ["val"], "8 is out of range"),
        ([], 'no vector has the split "train"'),
    ],
)
def test_what_will_not(splits, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        check(str(write(tmp_path, splits)))
    assert stopped.value.code == 1
    said = capsys.readouterr().err
    assert message in said
    assert "will not train" in said


def test_labels_without_vectors_are_sent_to_preparation(tmp_path, capsys):
    path = write(tmp_path, ["train", "val"])
    document = json.loads(path.read_text())
    del document[0]["metadata"]["filename"]
    path.write_text(json.dumps(document))
    with pytest.raises(SystemExit):
        check(str(path))
    assert "selfie prepare sae" in capsys.readouterr().err


def test_split_mends_what_check_found(tmp_path):
    path = write(tmp_path, ["train"] * 8)
    split(path, val_fraction=0.25)
    check(str(path))
    assert len(load_dataset(path).labelled("val")) == 2


def test_merge_and_convert(tmp_path, capsys):
    a = write(tmp_path, ["train", "val"])
    b = write(tmp_path, ["train", "test"], dataset_name="other")
    out = tmp_path / "both.json"
    merge(a, b, out=out)
    convert(out)
    said = capsys.readouterr().out.split()
    assert said == [str(out), str(tmp_path / "v.safetensors"), str(out)]
    assert {s.metadata["filename"] for s in load_dataset(out).sections} == {"v.safetensors"}
    assert [item.section for item in load_dataset(out).labelled("test")] == [1]
