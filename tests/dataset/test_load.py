from __future__ import annotations

import gzip
import json
import os
import pickle
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from selfie_adapters.dataset import Item, Section, load_dataset, read_label_source, save_dataset
from selfie_adapters.dataset.vectors import DIGEST_KEY, open_vectors, vectors_digest
from selfie_adapters.errors import ConfigError, DataError, MissingFileError

METADATA = {
    "dataset_name": "toy",
    "filename": "v.pt",
    "layer": 3,
    "source": "test",
    "vector_type": "sae_decoder",
}


def document(items=None, **metadata):
    if items is None:
        items = [
            {"index": 0, "labels": ["a", "b"], "split": "train"},
            {"index": 2, "labels": ["c"], "split": "val"},
        ]
    return [{"metadata": {**METADATA, **metadata}, "vectors": items}]


def write(folder: Path, content, vectors=None, name="toy.json") -> Path:
    torch.save(
        torch.arange(12.0).reshape(3, 4) + 1 if vectors is None else vectors, folder / "v.pt"
    )
    path = folder / name
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    path.write_bytes(data)
    return path


def refused(path: Path, *patterns: str) -> None:
    with pytest.raises(DataError) as caught:
        load_dataset(path)
    message = str(caught.value)
    assert path.name in message
    for pattern in patterns:
        assert pattern in message, message


def test_test_rows_are_a_split_of_their_own(tmp_path):
    splits = {2: "test", 0: "train", 1: "val"}
    items = [{"index": i, "labels": [f"l{i}"], "split": one} for i, one in splits.items()]
    path = write(tmp_path, document(items))
    dataset = load_dataset(path)
    for index, split in splits.items():
        assert dataset.examples(split).labels == [f"l{index}"]
        assert [item.row for item in dataset.labelled(split)] == [index]
        assert read_label_source(path, split).places == [(0, index)]
    assert [item.split for item in dataset.labelled()] == ["test", "train", "val"]
    assert len(read_label_source(path).places) == 3


def test_one_example_a_vector_and_label_in_file_order(tmp_path):
    dataset = load_dataset(write(tmp_path, document()))
    train = dataset.examples("train")
    assert train.labels == ["a", "b"]
    assert train.row.tolist() == [0, 0]
    assert dataset.examples("val").labels == ["c"]
    assert dataset.d_model == 4
    gathered = dataset.gather(torch.tensor([0, 0]), torch.tensor([2, 0]))
    assert gathered.tolist() == [[9.0, 10.0, 11.0, 12.0], [1.0, 2.0, 3.0, 4.0]]


def test_gz_is_known_by_its_bytes_not_by_its_name(tmp_path):
    data = gzip.compress(json.dumps(document()).encode())
    assert load_dataset(write(tmp_path, data, name="toy.json.gz")).examples("val").labels == ["c"]
    assert load_dataset(write(tmp_path, data, name="toy.json")).examples("val").labels == ["c"]


def test_several_sections_with_different_files_and_formats(tmp_path):
    other = torch.full((2, 4), 7.0)
    save_file({"anything": other}, tmp_path / "w.safetensors")
    far = tmp_path / "far"
    far.mkdir()
    np.save(far / "n.npy", np.full((1, 4), 5.0, dtype=np.float16))
    content = (
        document()
        + document(
            [{"index": 1, "labels": ["d"], "split": "train"}], filename="w.safetensors", layer=4
        )
        + document(
            [{"index": 0, "labels": ["e"], "split": "train"}],
            filename=str(far / "n.npy"),
            dataset_name="abs",
        )
    )
    dataset = load_dataset(write(tmp_path, content))
    assert [section.id for section in dataset.sections] == ["toy@l3", "toy@l4", "abs@l3"]
    train = dataset.examples("train")
    assert train.labels == ["a", "b", "d", "e"]
    assert train.section.tolist() == [0, 0, 1, 2]
    vectors = dataset.gather(train.section, train.row)
    assert vectors[:, 0].tolist() == [1.0, 1.0, 7.0, 5.0]
    assert vectors.dtype == torch.float32


def test_relative_paths_count_from_the_json_and_not_from_the_current_folder(tmp_path, monkeypatch):
    path = write(tmp_path, document())
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert load_dataset(path).d_model == 4


def test_a_number_in_the_metadata_that_is_not_finite_is_read_as_absent(tmp_path):
    dataset = load_dataset(write(tmp_path, document(mean_norm=float("nan"), scale=float("-inf"))))
    assert dataset.sections[0].metadata["mean_norm"] is None
    assert dataset.sections[0].metadata["scale"] is None


def test_extra_metadata_is_kept(tmp_path):
    dataset = load_dataset(write(tmp_path, document(num_features=3, saelens_release="r")))
    assert dataset.sections[0].metadata["saelens_release"] == "r"


def test_what_is_written_is_read_back_and_repeats_to_the_byte(tmp_path):
    vectors = torch.randn(3, 4)
    items = [Item(0, ["x", "y"], "train"), Item(2, ["naïve — 日本"], "val")]
    for suffix, filename in ((".json", "a.pt"), (".json.gz", "a.safetensors")):
        metadata = {**METADATA, "filename": filename, "note": "kept"}
        path = tmp_path / f"out{suffix}"
        save_dataset(path, [Section(metadata, vectors, items)], overwrite=True)
        first = path.read_bytes()
        back = load_dataset(path)
        digest = vectors_digest(vectors)
        assert back.sections[0].metadata == {**metadata, DIGEST_KEY: digest}
        assert list(back.sections[0].items) == items
        assert torch.equal(back.sections[0].vectors, vectors)
        save_dataset(path, [Section(metadata, vectors, items)], overwrite=True)
        assert path.read_bytes() == first
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "a.pt",
        "a.safetensors",
        "out.json",
        "out.json.gz",
    ]


def test_nothing_is_written_that_could_not_be_read_back(tmp_path):
    section = Section(METADATA, torch.ones(1, 4), [Item(0, [" "], "train")])
    with pytest.raises(DataError, match="blank"):
        save_dataset(tmp_path / "bad.json", [section], overwrite=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".npy"])
def test_vectors_are_mapped_not_copied(tmp_path, suffix):
    path = tmp_path / f"v{suffix}"
    big = torch.zeros(4000, 1000)
    if suffix == ".pt":
        torch.save(big, path)
    elif suffix == ".npy":
        np.save(path, big.numpy())
    else:
        save_file({"v": big}, path)
    opened = open_vectors(path)
    mapped = Path(f"/proc/{os.getpid()}/maps")
    if not mapped.exists():
        pytest.skip("no list of memory maps on this system")
    assert str(path) in mapped.read_text()
    assert opened.shape == (4000, 1000)


def test_131k_labels_load_in_under_two_seconds(tmp_path):
    n = 131_072
    items = [
        {
            "index": i,
            "labels": [f"a concept with number {i}"],
            "split": "val" if i % 10 == 0 else "train",
        }
        for i in range(n)
    ]
    path = write(tmp_path, document(items), vectors=torch.ones(n, 4))
    started = time.process_time()  # of this process: other tests run beside it
    dataset = load_dataset(path)
    assert time.process_time() - started < 2.0
    assert len(dataset.examples("val")) == 13_108


def test_a_missing_file_names_those_nearby(tmp_path):
    write(tmp_path, document())
    with pytest.raises(MissingFileError, match=r"toi.json: no such file. Nearby: toy.json"):
        load_dataset(tmp_path / "toi.json")


def test_a_folder_is_not_a_file(tmp_path):
    with pytest.raises(MissingFileError, match="is a folder"):
        load_dataset(tmp_path)


@pytest.mark.parametrize(
    ("content", "patterns"),
    [
        (b"index,label\n0,cat\n", ["not JSON"]),
        (b"", ["empty"]),
        (b"[\xff\xfe]", ["not JSON"]),
        (
            gzip.compress(b"[" + b" " * 5000 + b"]", mtime=0)[:-12],
            ["gzip", "ends early or is damaged"],
        ),
        (b'{"metadata": {}, "vectors": []}', ["an object", "list of sections"]),
        (b"[]", ["empty list"]),
        (b'["a"]', ["section 0", "a string"]),
        (b'[{"metadata": {}}]', ['the key "vectors" is missing', 'the key "dataset_name"']),
    ],
    ids=["csv", "empty", "not utf-8", "cut gz", "object", "no section", "text", "no vectors"],
)
def test_a_file_of_another_shape_is_refused(tmp_path, content, patterns):
    refused(write(tmp_path, content), *patterns)


@pytest.mark.parametrize(
    ("item", "patterns"),
    [
        ({"index": 3, "labels": ["a"], "split": "val"}, ["item 1", "3 is out of range", "0 to 2"]),
        ({"index": -1, "labels": ["a"], "split": "val"}, ["item 1", "negative"]),
        ({"index": 0, "labels": ["a"], "split": "val"}, ["item 1", "0 is in item 0 already"]),
        ({"index": "1", "labels": ["a"], "split": "val"}, ["item 1, index", "'1' is a string"]),
        ({"index": True, "labels": ["a"], "split": "val"}, ["item 1, index", "true or false"]),
        ({"index": 1, "labels": ["a"], "split": "valid"}, ["split", 'Did you mean "val"?']),
        ({"index": 1, "labels": ["a"], "split": None}, ["split", "none of train, val, test"]),
        ({"index": 1, "labels": [], "split": "val"}, ["labels", "an empty list"]),
        ({"index": 1, "labels": ["  "], "split": "val"}, ["labels", "a blank string"]),
        ({"index": 1, "labels": [None], "split": "val"}, ["labels", "null"]),
        ({"index": 1, "labels": "cat", "split": "val"}, ["labels", "a string", "list of strings"]),
        ({"index": 1, "label": ["a"], "split": "val"}, ['"labels" is missing', 'it by "label"']),
        (["a"], ["item 1", "a list where an object is expected"]),
    ],
)
def test_a_bad_item_is_refused_with_section_item_and_fix(tmp_path, item, patterns):
    items = [{"index": 0, "labels": ["x"], "split": "train"}, item]
    refused(write(tmp_path, document(items)), 'section 0 ("toy")', *patterns)


@pytest.mark.parametrize(
    ("changed", "patterns"),
    [
        ({"layer": "3"}, ["metadata.layer", "'3' is a string", "integer"]),
        ({"layer": True}, ["metadata.layer", "true or false"]),
        ({"dataset_name": 5}, ["metadata.dataset_name", "5 is a number"]),
    ],
)
def test_mistyped_metadata_is_refused(tmp_path, changed, patterns):
    refused(write(tmp_path, document(**changed)), *patterns)


def test_a_misspelt_metadata_key_is_recognised(tmp_path):
    content = document()
    content[0]["metadata"]["vector_typ"] = content[0]["metadata"].pop("vector_type")
    refused(write(tmp_path, content), '"vector_type" is missing', 'it by "vector_typ"')


def test_a_missing_vector_file_names_its_section(tmp_path):
    path = write(tmp_path, document(filename="gone.pt"))
    refused(path, 'section 0 ("toy")', "gone.pt: no such file")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (torch.ones(1, 2, 3), "tensor [1, 2, 3]"),
        ({"a": torch.ones(4), "b": torch.ones(3)}, "a [4], b [3]"),
        ({"a": torch.ones(2, 2), "b": torch.ones(3, 3)}, "a [2, 2], b [3, 3]"),
        ({"text": "hello"}, "no tensor"),
        (torch.ones(3, 4, dtype=torch.int64), "torch.int64"),
    ],
)
def test_a_pt_without_one_float_matrix_is_refused(tmp_path, content, found):
    refused(write(tmp_path, document(), vectors=content), "v.pt", found)


def test_a_matrix_inside_a_dict_is_found(tmp_path):
    path = write(tmp_path, document(), vectors={"W_dec": torch.ones(3, 4), "b": torch.ones(4)})
    assert load_dataset(path).d_model == 4


class _Trap:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_a_pt_that_asks_for_code_is_refused_and_nothing_runs(tmp_path, how):
    path = write(tmp_path, document())
    mark = tmp_path / "it-ran"
    if how == "torch":
        torch.save({"vectors": torch.ones(3, 4), "trap": _Trap(mark)}, tmp_path / "v.pt")
    else:
        (tmp_path / "v.pt").write_bytes(pickle.dumps(_Trap(mark)))
    refused(path, "v.pt", "execute code")
    assert not mark.exists()
    if how == "pickle":  # the trap is a real one
        pickle.loads((tmp_path / "v.pt").read_bytes())
        assert mark.exists()


def test_a_damaged_pt_is_refused(tmp_path):
    path = write(tmp_path, document())
    (tmp_path / "v.pt").write_bytes((tmp_path / "v.pt").read_bytes()[:200])
    refused(path, "v.pt")


@pytest.mark.parametrize(
    ("value", "what"),
    [(float("nan"), "NaN or infinity"), (float("inf"), "NaN or infinity"), (0.0, "all zeros")],
)
def test_bad_rows_are_refused_only_where_they_are_labelled(tmp_path, value, what):
    vectors = torch.ones(3, 4)
    vectors[1] = value
    load_dataset(write(tmp_path, document(), vectors=vectors))  # row 1 has no label
    vectors = torch.ones(3, 4)
    vectors[2] = value
    refused(write(tmp_path, document(), vectors=vectors), "item 1", "row 2", what)


def test_a_single_nan_in_a_row_is_seen(tmp_path):
    vectors = torch.ones(3, 4)
    vectors[2, 1] = float("nan")
    refused(write(tmp_path, document(), vectors=vectors), "row 2", "NaN")


def test_sections_of_different_width_are_refused(tmp_path):
    torch.save(torch.ones(1, 5), tmp_path / "w.pt")
    other = document([{"index": 0, "labels": ["d"], "split": "train"}], filename="w.pt", layer=9)
    refused(write(tmp_path, document() + other), "toy@l3 4, toy@l9 5")


def test_labels_without_vectors_name_the_command_that_makes_them(tmp_path):
    content = document(dataset_name="Goodfire/Llama-3.1-8B-Instruct-SAE-l19", layer=19)
    del content[0]["metadata"]["filename"]
    refused(
        write(tmp_path, content, name="goodfire_8b_sae_labels.json"),
        "the vectors are missing",
        "selfie prepare sae --release goodfire-llama-3.1-8b-instruct --sae-id layer_19 "
        "--labels-json ",
    )


def test_the_published_label_file_is_understood():
    path = Path(__file__).parents[3] / "shared/data/goodfire_8b_sae_labels.json.gz"
    if not path.exists():
        pytest.skip("the published label file is not at hand")
    refused(path, "the vectors are missing", "--sae-id layer_19")


def test_many_problems_are_cut_with_their_number(tmp_path):
    items = [{"index": i, "labels": [], "split": "train"} for i in range(9)]
    refused(write(tmp_path, document(items)), "item 4", "and 4 more: selfie data inspect")


@pytest.mark.parametrize("taken", ["a.pt", "out.json"])
def test_existing_files_are_not_replaced_unless_asked(taken, tmp_path):
    section = Section({**METADATA, "filename": "a.pt"}, torch.ones(1, 4), [Item(0, ["x"], "train")])
    (tmp_path / taken).write_text("mine")
    with pytest.raises(ConfigError, match=rf"{taken} exists.*--overwrite"):
        save_dataset(tmp_path / "out.json", [section])
    assert [file.read_text() for file in tmp_path.iterdir()] == ["mine"]
    save_dataset(tmp_path / "out.json", [section], overwrite=True)
    assert torch.equal(load_dataset(tmp_path / "out.json").sections[0].vectors, section.vectors)


@pytest.mark.parametrize(
    "filename", ["../a.pt", "{other}/a.pt", "link/a.pt", "sub/../../a.pt", "."]
)
def test_vectors_are_never_written_outside_of_the_folder(filename, tmp_path):
    folder, other = tmp_path / "folder", tmp_path / "other"
    folder.mkdir()
    other.mkdir()
    (folder / "link").symlink_to(other)
    metadata = {**METADATA, "filename": filename.format(other=other)}
    section = Section(metadata, torch.ones(1, 4), [Item(0, ["x"], "train")])
    with pytest.raises(DataError, match="is outside of the folder"):
        save_dataset(folder / "out.json", [section], overwrite=True)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["folder", "link", "other"]
