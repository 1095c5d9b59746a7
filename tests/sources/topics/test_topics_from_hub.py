from __future__ import annotations

import gzip
import json

import huggingface_hub
import pytest

from hub_server import hub_server
from selfie_adapters.errors import DataError, DownloadError, MissingExtraError
from selfie_adapters.files import existing_file
from selfie_adapters.sources import Topic, open_topics

NAME = "keenanpepper/fifty-thousand-things"
ROWS = [
    {
        "original_title": "Tawny owl",
        "prompt": "Tell me about tawny owls.",
        "labels": ["tawny owl", "a brown woodland owl"],
        "split": "train",
    },
    {
        "original_title": "Tin",
        "prompt": "What is tin?",
        "labels": ["a soft metal", "tin"],
        "split": "val",
    },
]
TOPICS = [
    Topic(("tawny owl", "a brown woodland owl"), "Tawny owl", "Tell me about tawny owls.", "train"),
    Topic(("a soft metal", "tin"), "Tin", "What is tin?", "val"),
]


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A data set's folder on a hub on loopback, and what was asked of the hub."""
    folder = tmp_path / "hub" / NAME
    folder.mkdir(parents=True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    with hub_server(tmp_path / "hub") as (address, requests):
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield folder, requests


def write_parquet(path, rows):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def test_the_data_set_loads_by_its_name(hub):
    folder, requests = hub
    write_parquet(folder / "data/train-00000-of-00002.parquet", ROWS[:1])
    write_parquet(folder / "data/train-00001-of-00002.parquet", ROWS[1:])
    (folder / "README.md").write_text("# Fifty thousand things")
    (folder / "rows.jsonl").write_text(json.dumps(ROWS[0]) + "\n")  # the same rows once more
    assert open_topics(NAME) == TOPICS
    assert not any(path.endswith("README.md") for _, path, _ in requests)


@pytest.mark.parametrize("packed", [False, True])
def test_json_lines_do_as_well(hub, packed):
    folder, _ = hub
    text = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
    name = "things.jsonl.gz" if packed else "things.jsonl"
    (folder / name).write_bytes(gzip.compress(text) if packed else text)
    assert open_topics(NAME) == TOPICS


def test_a_file_wins_over_the_hub(hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "keenanpepper").mkdir()
    (tmp_path / NAME).write_text('{"name": "owl"}\n')
    assert existing_file(NAME)
    assert open_topics(NAME) == [Topic(("owl",), "owl")]


def test_validation_is_another_word_for_val_and_columns_may_be_missing(hub):
    folder, _ = hub
    rows = [{"original_title": "Tin", "labels": ["tin"], "split": "validation", "prompt": None}]
    rows += [{"original_title": "Owl", "labels": "owl"}]
    (folder / "t.json").write_text(json.dumps(rows))
    assert open_topics(NAME) == [Topic(("tin",), "Tin", None, "val"), Topic(("owl",), "Owl")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"title": "Tin"}\n', r"t\.jsonl, row 1: no column original_title \(columns: title\)"),
        ('{"original_title": "Tin", "labels": []}\n', "row 1: labels is"),
        ('{"original_title": 7, "labels": ["x"]}\n', "row 1: name is 7"),
        (json.dumps({**ROWS[0], "split": "dev"}), "split is 'dev'"),
        ("[1]\n", "an object is expected. Write the row as an object"),
        ("no json\n", r"t\.jsonl, line 1, column 5: not JSON"),
        ("", "no rows"),
    ],
)
def test_bad_rows_are_named(hub, text, message):
    folder, _ = hub
    (folder / "t.jsonl").write_text(text)
    with pytest.raises(DataError, match=message):
        open_topics(NAME)


def test_a_data_set_without_data_is_said(hub):
    folder, _ = hub
    (folder / "a.txt").write_text("x")
    with pytest.raises(DataError, match=r"has no \.parquet"):
        open_topics(NAME)


def test_what_is_no_parquet_is_said(hub):
    folder, _ = hub
    (folder / "a.parquet").write_text("PAR1 or not")
    with pytest.raises(DataError, match=r"a\.parquet: cut off, or not a Parquet file"):
        open_topics(NAME)


def test_a_name_that_the_hub_does_not_know(hub):
    with pytest.raises(
        DownloadError,
        match=r"nobody/nothing: cannot be fetched.*There is no file nobody/nothing here",
    ):
        open_topics("nobody/nothing")


def test_offline_the_cache_serves_what_was_fetched(hub, monkeypatch):
    folder, requests = hub
    (folder / "t.jsonl").write_text(json.dumps(ROWS[0]) + "\n")
    open_topics(NAME)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    before = len(requests)
    assert open_topics(NAME) == TOPICS[:1]
    assert len(requests) == before
    with pytest.raises(DownloadError, match="HF_HUB_OFFLINE is set"):
        open_topics("nobody/nothing")


def test_without_pyarrow_the_extra_is_named(hub, monkeypatch):
    folder, _ = hub
    (folder / "a.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"selfie-adapters\[export\]"):
        open_topics(NAME)
