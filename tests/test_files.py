from __future__ import annotations

import hashlib
import json
import os

import pytest

from selfie_adapters.errors import DataError, MissingFileError
from selfie_adapters.files import (
    append_jsonl,
    atomic_path,
    cache_dir,
    existing_file,
    read_jsonl,
    sha256,
    write_json,
    write_text,
)


def test_a_file_appears_only_when_the_block_succeeds(tmp_path):
    path = tmp_path / "new" / "x.txt"
    with atomic_path(path) as temporary:
        temporary.write_text("whole")
        assert temporary.parent == path.parent
        assert not path.exists()
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("old")

    def interrupted() -> None:
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_written_files_have_ordinary_permissions(tmp_path):
    previous = os.umask(0o022)
    try:
        write_text(tmp_path / "x", "y")
    finally:
        os.umask(previous)
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o644


def test_json_keeps_text_as_it_is(tmp_path):
    write_json(tmp_path / "x.json", {"a": "ü □"})
    raw = (tmp_path / "x.json").read_bytes()
    assert "ü □".encode() in raw
    assert raw.endswith(b"\n")
    assert json.loads(raw) == {"a": "ü □"}


def test_rows_appended_are_read_back(tmp_path):
    path = tmp_path / "rows.jsonl"
    for i in range(3):
        append_jsonl(path, {"i": i, "text": "line\nbreak\u2028"})
    assert read_jsonl(path) == [{"i": i, "text": "line\nbreak\u2028"} for i in range(3)]


def test_a_torn_last_line_is_dropped_and_a_torn_middle_one_is_not(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n{"a": 2}\n{"a"')
    assert read_jsonl(path) == [{"a": 1}, {"a": 2}]
    path.write_text('{"a": 1}\n{"a"\n{"a": 3}\n')
    with pytest.raises(DataError, match="line 2: not JSON"):
        read_jsonl(path)


def test_a_bad_line_that_was_written_whole_is_an_error(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n{"a"\n')
    with pytest.raises(DataError, match="line 2"):
        read_jsonl(path)


def test_missing_files_say_what_is_near(tmp_path):
    (tmp_path / "labels.json").touch()
    with pytest.raises(MissingFileError, match="Nearby: labels.json"):
        existing_file(tmp_path / "label.json")
    with pytest.raises(MissingFileError, match="is a folder"):
        existing_file(tmp_path)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        existing_file(tmp_path / "no" / "x")
    assert existing_file(tmp_path / "labels.json") == tmp_path / "labels.json"


def test_hash_of_a_file(tmp_path):
    data = bytes(range(256)) * 5000
    (tmp_path / "x").write_bytes(data)
    assert sha256(tmp_path / "x") == hashlib.sha256(data).hexdigest()


def test_the_cache_is_where_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("SELFIE_CACHE", raising=False)
    assert cache_dir() == tmp_path / "selfie"
    monkeypatch.setenv("SELFIE_CACHE", str(tmp_path / "own"))
    assert cache_dir() == tmp_path / "own"
