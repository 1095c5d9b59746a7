from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path

import pytest

from selfie_adapters.errors import DataError, MissingFileError
from selfie_adapters.sources import LabelSet, read_label_file
from selfie_adapters.sources.labels.files import write_label_file

SHARED = "shared/data/goodfire_8b_sae_labels.json.gz"
PUBLISHED = next((p / SHARED for p in Path(__file__).parents if (p / SHARED).is_file()), None)
META = {"dataset_name": "toy", "layer": 3, "source": "t", "vector_type": "x"}


def written(folder, content, name="labels.json"):
    path = folder / name
    if not isinstance(content, str | bytes):
        content = json.dumps(content)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def training_format(*items, **metadata):
    return [{"metadata": META | metadata, "vectors": list(items)}]


def item(index, *labels, split="train"):
    return {"index": index, "labels": list(labels), "split": split}


@pytest.mark.parametrize("zipped", [False, True])
def test_a_mapping_from_latent_to_label(tmp_path, zipped):
    content = json.dumps({"10": "ten ", "2": "two", "3": " ", "4": None}).encode()
    path = written(tmp_path, gzip.compress(content, mtime=0) if zipped else content)
    labels = read_label_file(path)
    assert list(labels.labels.items()) == [(2, ["two"]), (10, ["ten"])]
    assert (labels.splits, labels.explainers) == ({}, {})
    assert labels.report == ["4 entries, 2 labels", "2 empty labels, dropped"]
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert labels.origin == {"labels_from": "labels.json", "labels_sha256": digest}


@pytest.mark.parametrize("metadata", [{}, {"filename": "not_there.pt"}])
def test_the_training_format_keeps_splits_and_all_labels(tmp_path, metadata):
    document = training_format(item(7, "c", "d", split="val"), item(1, "a"), **metadata)
    labels = read_label_file(written(tmp_path, document))
    assert labels.labels == {1: ["a"], 7: ["c", "d"]}
    assert labels.splits == {1: "train", 7: "val"}
    assert labels.origin["labels_dataset"] == "toy"
    assert labels.report == ["2 latents, 3 labels", "splits of the file: 1 train, 1 val"]
    tested = training_format(item(7, "c", split="test"), item(1, "a"), **metadata)
    labels = read_label_file(written(tmp_path, tested))
    assert labels.splits == {1: "train", 7: "test"}
    assert labels.report[-1] == "splits of the file: 1 train, 0 val, 1 test"


@pytest.mark.skipif(PUBLISHED is None, reason="needs the published label file")
def test_the_published_file():
    labels = read_label_file(PUBLISHED)
    # the counts stand in the publication
    assert len(labels) == len(labels.labels) == 45_418
    splits = list(labels.splits.values())
    assert (splits.count("train"), splits.count("val")) == (40_877, 4_541)
    assert len({text for texts in labels.labels.values() for text in texts}) == 43_293
    assert labels.restrict(65_536) == labels


LINES = [
    {"index": "5", "description": "five"},
    {"index": 2, "description": "two", "more": [1]},
    {"index": "5", "description": "also five"},
    {"index": "5", "description": "five"},
    {"index": 9, "description": None},
]


@pytest.mark.parametrize("name", ["l.jsonl", "l.jsonl.gz", "l.txt"])
def test_json_lines(tmp_path, name):
    content = "\r\n".join(map(json.dumps, LINES)).encode() + b"\n\n"
    content = gzip.compress(content, mtime=0) if name.endswith(".gz") else content
    labels = read_label_file(written(tmp_path, content, name), "jsonl" if name == "l.txt" else None)
    assert list(labels.labels.items()) == [(2, ["two"]), (5, ["five", "also five"])]
    assert labels.explainers == {}
    assert labels.report == [
        "5 rows, 3 labels",
        "1 repeated rows, dropped",
        "1 empty descriptions, dropped",
    ]


ROWS = b'{"index": "7", "description": "seven"}\n{"index": 8, "description": "eight"}\n'
MAPPINGS = {
    "rows": ROWS,
    "rows, the first with half a character": b'{"description": "seven", "index": 7, '
    b'"tokens": ["\\ud83d"]}\n{"index": 8, "description": "eight"}',
    "mapping": b'{"7": "seven", "8": "eight"}',
    "mapping on lines": b'{\n "7": "seven",\n "8": "eight"\n}\n',
    "mapping from the first line": b'{ "7": "seven",\n "8": "eight"}',
    "training format": json.dumps(training_format(item(7, "seven"), item(8, "eight"))).encode(),
    "training format on lines": json.dumps(
        training_format(item(7, "seven"), item(8, "eight")), indent=1
    ).encode(),
}


@pytest.mark.parametrize("kind", ["json", "jsonl", None])
@pytest.mark.parametrize("form", MAPPINGS)
@pytest.mark.parametrize("name", ["l.json", "l.jsonl", "l.jsonl.gz", "l.txt"])
def test_the_content_decides_and_not_the_name_or_the_option(tmp_path, name, form, kind):
    content = MAPPINGS[form]
    content = gzip.compress(content, mtime=0) if name.endswith(".gz") else content
    labels = read_label_file(written(tmp_path, content, name), kind)
    assert labels.labels == {7: ["seven"], 8: ["eight"]}
    assert bool(labels.splits) == form.startswith("training")


def test_json_lines_by_several_explainers_keep_all_and_say_so(tmp_path):
    rows = [
        {"index": 1, "description": "a cat", "explanationModelName": "m", "typeName": "t"},
        {"index": 1, "description": "a pet", "explanationModelName": "n", "typeName": "t"},
    ]
    labels = read_label_file(written(tmp_path, "\n".join(map(json.dumps, rows)), "l.jsonl"))
    assert labels.labels == {1: ["a cat", "a pet"]}
    assert labels.explainers == {1: [("m", "t"), ("n", "t")]}
    assert "m/t: 1 labels of 1 latents, kept" in labels.report
    assert "rule: all explainers" in labels.report


@pytest.mark.parametrize("name", ["out.jsonl", "sub/out.jsonl.gz"])
def test_what_is_written_is_read_back(tmp_path, name):
    labels = LabelSet(
        {3: ["drei – „3“"], 1: ["a\nb", "c"]},
        explainers={3: [(None, "human")], 1: [("m", "t"), ("m", "u")]},
    )
    path = write_label_file(tmp_path / name, labels)
    again = read_label_file(path)
    assert again.labels == labels.labels
    assert list(again.labels) == [1, 3]
    assert again.explainers == labels.explainers
    before = path.read_bytes()
    assert write_label_file(path, labels).read_bytes() == before


def test_only_json_lines_are_written(tmp_path):
    with pytest.raises(DataError, match=r"out.json: a name that ends in .jsonl"):
        write_label_file(tmp_path / "out.json", LabelSet({1: ["a"]}))


CUT_OFF = gzip.compress(b'{"1": "a"}', mtime=0)[:-9]
DEEP = "[" * 100_000


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("l.json", "", "the file is empty"),
        ("l.json", "{}", "no labels"),
        ("l.json", '{"1": ', "line 1, column .*: not JSON"),
        ("l.json", '"text"', "found 'text'. Expected"),
        ("l.json", b'{"1": "\xff"}', "not UTF-8"),
        ("l.json", DEEP, "nested too deeply"),
        ("l.json", CUT_OFF, "the gzip data ends early or is damaged"),
        ("l.json", '{"1": "a", "1": "b"}', "latent 1 occurs twice"),
        ("l.json", '{"1": "a", "01": "b"}', "latent 1 occurs twice"),
        ("l.json", '{"-1": "a"}', "key \"-1\": index is '-1'; an integer from 0"),
        ("l.json", '{"owl": "a"}', 'key "owl": index is'),
        ("l.json", '{"1": ["a"]}', "key \"1\": the label is \\['a'\\]; a string is expected"),
        ("l.json", '{"index": "1", "description": "a"}\n{"index": "2"}', "line 2: .*`description`"),
        ("l.json", {"metadata": META, "vectors": []}, r"Put it in \[ \]"),
        ("l.json", training_format(item(1, "a")) * 2, "2 sections"),
        ("l.json", training_format(item(1)), "section 0 .* item 0, labels: an empty list"),
        ("l.json", training_format(item(1, " ")), "a blank string"),
        ("l.json", training_format(item(1, "a"), item(1, "b")), "is in item 0 already"),
        ("l.json", training_format(item(-1, "a")), "-1 is negative"),
        ("l.json", training_format(item(1, "a", split="dev")), "none of train, val, test"),
        ("l.jsonl", "[1]", "section 0: .*an object"),
        ("l.jsonl", '{"index": 1, "description": "a"}\n{"index', "line 2, column 8: not JSON"),
        ("l.jsonl", '{"index": true, "description": "a"}', "line 1: Expected `int | str`"),
        ("l.jsonl", '{"index": 1.5, "description": "a"}', "line 1: Expected `int | str`"),
        ("l.jsonl", '{"index": -3, "description": "a"}', "line 1: index is -3"),
        ("l.jsonl", '{"index": "1e3", "description": "a"}', "line 1: index is '1e3'"),
        ("l.jsonl", '{"index": "٣", "description": "a"}', "line 1: index is '٣'"),
        ("l.jsonl", '{"index": 1, "label": "a"}', "line 1: .*`description`.* keys index, label"),
        ("l.jsonl", '{"index": 1, "description": 2}', r"line 1: Expected `str \| null`"),
        ("l.jsonl", "3", "line 1: Expected `object`"),
        ("l.jsonl", b'{"index": 1, "description": "\xff"}', "line 1, column 30: not UTF-8"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(tmp_path, name, content, message):
    path = written(tmp_path, content, name)
    with pytest.raises(DataError, match=message) as raised:
        read_label_file(path)
    assert str(raised.value).startswith(str(path))


def test_a_missing_file_names_its_neighbour(tmp_path):
    written(tmp_path, "{}", "labels.json")
    with pytest.raises(MissingFileError, match=r"Nearby: labels.json"):
        read_label_file(tmp_path / "label.json")
