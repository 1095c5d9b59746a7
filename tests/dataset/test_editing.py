from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from selfie_adapters.dataset import load_dataset, open_vectors
from selfie_adapters.dataset.editing import convert_file, merge_files, split_file
from selfie_adapters.errors import ConfigError, DataError, MissingFileError

VECTORS = torch.arange(1.0, 41.0).reshape(20, 2)


def training_file(folder, name="a", layer=0, width=2, suffix=".pt", **metadata):
    folder.mkdir(parents=True, exist_ok=True)
    vectors = torch.cat([VECTORS] * (width // 2), dim=1).contiguous()
    if suffix == ".pt":
        torch.save(vectors, folder / f"{name}.pt")
    elif suffix == ".npy":
        np.save(folder / f"{name}.npy", vectors.numpy())
    else:
        save_file({"vectors": vectors}, folder / f"{name}{suffix}")
    items = [
        {"index": i, "labels": [f"{name} {i}"], "split": "val" if i == 0 else "train", "note": i}
        for i in range(20)
    ]
    known = {"dataset_name": name, "filename": f"{name}{suffix}", "layer": layer}
    known |= {"source": "s", "vector_type": "v", "mine": {"kept": True}}
    path = folder / f"{name}.json"
    path.write_text(json.dumps([{"metadata": known | metadata, "vectors": items, "extra": 1}]))
    return path


def test_merged_sections_find_their_vectors_from_elsewhere(tmp_path):
    a, b = training_file(tmp_path / "one"), training_file(tmp_path / "two", "b", layer=3)
    out = merge_files([a, b], tmp_path / "both" / "all.json.gz")
    dataset = load_dataset(out)
    assert [section.id for section in dataset.sections] == ["a@l0", "b@l3"]
    assert torch.equal(dataset.sections[1].vectors, VECTORS)
    assert dataset.sections[0].metadata["filename"] == "../one/a.pt"
    assert dataset.sections[0].metadata["mine"] == {"kept": True}
    # and the whole folder can be moved
    (tmp_path / "both").rename(tmp_path / "same-depth")
    assert load_dataset(tmp_path / "same-depth" / "all.json.gz").d_model == 2


def test_what_cannot_be_merged(tmp_path):
    a = training_file(tmp_path)
    wide = training_file(tmp_path, "wide", width=4)
    with pytest.raises(DataError, match="different width"):
        merge_files([a, wide], tmp_path / "out.json")
    with pytest.raises(DataError, match="a@l0 is in more than one"):
        merge_files([a, a], tmp_path / "out.json")
    with pytest.raises(DataError, match="at least two"):
        merge_files([a], tmp_path / "out.json")
    with pytest.raises(MissingFileError):
        merge_files([a, tmp_path / "none.json"], tmp_path / "out.json")
    assert not (tmp_path / "out.json").exists()


def test_a_new_split_keeps_everything_else(tmp_path, golden):
    a = training_file(tmp_path)
    before = json.loads(a.read_text())[0]
    split_file(a, val_fraction=0.25, seed=7)
    (after,) = json.loads(a.read_text())
    held_out = [item["index"] for item in after["vectors"] if item["split"] == "val"]
    order = np.arange(20)  # the published rule, done again with numpy's own shuffle of an array
    np.random.RandomState(7).shuffle(order)
    assert held_out == sorted(order[:5].tolist())
    assert [item["index"] for item in after["vectors"]][-5:] == held_out
    unsplit = {item["index"]: {**item, "split": 0} for item in after["vectors"]}
    assert unsplit == {item["index"]: {**item, "split": 0} for item in before["vectors"]}
    assert (after["metadata"], after["extra"]) == (before["metadata"], 1)


def test_a_new_split_leaves_test_rows_alone(tmp_path):
    a = training_file(tmp_path)
    document = json.loads(a.read_text())
    for item in document[0]["vectors"][4:10]:
        item["split"] = "test"
    a.write_text(json.dumps(document))
    for seed in range(3):
        split_file(a, val_fraction=0.5, seed=seed)
        (section,) = json.loads(a.read_text())
        splits = [item["split"] for item in section["vectors"]]
        assert splits == ["train"] * 7 + ["val"] * 7 + ["test"] * 6
        assert [item["index"] for item in section["vectors"]][14:] == [*range(4, 10)]
    for item in document[0]["vectors"]:
        item["split"] = "test"
    a.write_text(json.dumps(document))
    with pytest.raises(DataError, match="0 labelled rows cannot be split"):
        split_file(a)


def test_a_split_into_another_folder_still_finds_the_vectors(tmp_path):
    a = training_file(tmp_path)
    text = a.read_text()
    out = split_file(a, out=tmp_path / "deep" / "er" / "new.json")
    assert a.read_text() == text
    assert torch.equal(load_dataset(out).sections[0].vectors, VECTORS)


def test_a_label_file_can_be_split(tmp_path):
    a = training_file(tmp_path)
    (section,) = json.loads(a.read_text())
    del section["metadata"]["filename"]
    a.write_text(json.dumps([section]))
    split_file(a, val_fraction=0.5)
    (section,) = json.loads(a.read_text())
    assert [item["split"] for item in section["vectors"]] == ["train"] * 10 + ["val"] * 10


@pytest.mark.parametrize(
    ("suffix", "other"), [(".pt", ".safetensors"), (".safetensors", ".pt"), (".npy", ".pt")]
)
def test_a_training_file_is_converted_with_its_vectors(suffix, other, tmp_path):
    a = training_file(tmp_path, suffix=suffix)
    assert convert_file(a) == [tmp_path / f"a{other}", a]
    section = load_dataset(a).sections[0]
    assert section.metadata["filename"] == f"a{other}"
    assert torch.equal(section.vectors, VECTORS)
    assert (tmp_path / f"a{suffix}").exists()


def test_a_vector_file_alone_is_converted(tmp_path):
    torch.save(VECTORS.bfloat16(), tmp_path / "v.pt")
    assert convert_file(tmp_path / "v.pt") == [tmp_path / "v.safetensors"]
    assert torch.equal(load_file(tmp_path / "v.safetensors")["vectors"], VECTORS.bfloat16())
    (tmp_path / "v.pt").unlink()
    convert_file(tmp_path / "v.safetensors")
    assert torch.equal(open_vectors(tmp_path / "v.pt"), VECTORS.bfloat16())


def test_sections_that_share_vectors_are_converted_together(tmp_path):
    a = training_file(tmp_path)
    (section,) = json.loads(a.read_text())
    other = {**section, "metadata": {**section["metadata"], "layer": 1}}
    a.write_text(json.dumps([section, other]))
    assert len(convert_file(a)) == 2
    filenames = [s.metadata["filename"] for s in load_dataset(a).sections]
    assert filenames == ["a.safetensors"] * 2


def test_existing_files_are_not_replaced_unless_asked(tmp_path):
    a, b = training_file(tmp_path), training_file(tmp_path, "b")
    taken = {name: tmp_path / name for name in ("out.json", "a.safetensors")}
    for file in taken.values():
        file.write_text("mine")
    calls = {
        "out.json": [
            lambda **options: merge_files([a, b], taken["out.json"], **options),
            lambda **options: split_file(a, out=taken["out.json"], **options),
        ],
        "a.safetensors": [
            lambda **options: convert_file(tmp_path / "a.pt", **options),
            lambda **options: convert_file(a, **options),
        ],
    }
    before = a.read_bytes()
    for name, writers in calls.items():
        for write in writers:
            with pytest.raises(ConfigError, match=rf"{name} exists.*--overwrite"):
                write()
            assert taken[name].read_text() == "mine"
    assert (
        a.read_bytes() == before
    )  # a training file whose vectors cannot be converted is as it was
    for name, writers in calls.items():
        for write in writers:
            write(overwrite=True)
            assert taken[name].read_bytes() != b"mine"


@pytest.mark.parametrize("absolute", [False, True])
def test_vectors_outside_of_the_folder_are_not_converted(absolute, tmp_path):
    elsewhere = training_file(tmp_path / "elsewhere").with_suffix(".pt")
    filename = str(elsewhere) if absolute else "../elsewhere/a.pt"
    a = training_file(tmp_path / "here", filename=filename)
    before = a.read_bytes()
    with pytest.raises(DataError, match="is outside of the folder .*here"):
        convert_file(a)
    assert a.read_bytes() == before
    assert sorted(file.name for file in elsewhere.parent.iterdir()) == ["a.json", "a.pt"]


def test_a_link_does_not_lead_a_conversion_out_of_the_folder(tmp_path):
    training_file(tmp_path / "elsewhere")
    a = training_file(tmp_path / "here", filename="link/a.pt")
    (tmp_path / "here" / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="is outside of the folder"):
        convert_file(a)
    assert not (tmp_path / "elsewhere" / "a.safetensors").exists()
