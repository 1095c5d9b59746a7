from __future__ import annotations

import gzip
import hashlib
import json
import os
import tracemalloc
import zlib

import pytest

from selfie_adapters.errors import DataError, MissingFileError, StorageError
from selfie_adapters.files import (
    atomic_path,
    cache_dir,
    existing_file,
    read_json,
    read_plain,
    sha256,
    user_path,
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


def test_what_killed_writers_left_is_removed_and_a_living_one_left_alone(tmp_path):
    path = tmp_path / "x.json"
    (tmp_path / ".x.json.abandoned.part").write_text("half")
    (tmp_path / ".y.json.other.part").write_text("of another file")
    with atomic_path(path) as living:
        living.write_text("first")
        write_text(path, "second")
        assert living.exists()
        assert path.read_text() == "second"
    assert path.read_text() == "first"
    assert sorted(p.name for p in tmp_path.iterdir()) == [".y.json.other.part", "x.json"]


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "large").mkdir()
    link = tmp_path / "x.txt"
    link.symlink_to("large/x.txt")  # there is no such file yet
    for text in ("one", "two"):
        write_text(link, text)
        assert link.is_symlink()
        assert (tmp_path / "large/x.txt").read_text() == text
    assert [p.name for p in (tmp_path / "large").iterdir()] == ["x.txt"]


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


def test_files_that_are_none_are_named(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, message in (
        ("pipe", "pipe, socket or device"),
        ("x" * 5000, "cannot be read: File name too long"),
        ("a\0b", "cannot be read"),
        ("file/x", "Not a directory"),
    ):
        (tmp_path / "file").touch()
        with pytest.raises(MissingFileError, match=message) as caught:
            existing_file(tmp_path / name)
        assert len(str(caught.value)) < 700
    with pytest.raises(MissingFileError, match="device"):
        existing_file("/dev/zero")


@pytest.mark.parametrize(("path", "kind"), [(None, "NoneType"), (3, "int"), (["a"], "list")])
def test_what_is_no_path_is_refused_with_its_type(path, kind):
    with pytest.raises(MissingFileError, match=f"expected, found {kind}"):
        user_path(path)


def test_the_home_of_nobody_is_an_ordinary_name():
    assert str(user_path("~nobody_of_this_name/x")) == "~nobody_of_this_name/x"
    with pytest.raises(MissingFileError, match="does not exist"):
        existing_file("~nobody_of_this_name/x")


def test_gzip_is_unpacked_in_one_or_several_members(tmp_path):
    text = b"".join(b'{"index": %d, "description": "label"}\n' % i for i in range(5000))
    for name, data in (
        ("plain", text),
        ("one.gz", gzip.compress(text)),
        ("two.gz", gzip.compress(text[:700]) + gzip.compress(text[700:])),
        ("padded.gz", gzip.compress(text) + b"\0" * 512),
    ):
        (tmp_path / name).write_bytes(data)
        assert read_plain(tmp_path / name) == text
    (tmp_path / "nothing.gz").write_bytes(gzip.compress(b""))
    assert read_plain(tmp_path / "nothing.gz") == b""


@pytest.mark.parametrize("damage", [lambda d: d[:-9], lambda d: d[:200], lambda d: d + b"tail"])
def test_damaged_gzip_is_an_error(tmp_path, damage):
    (tmp_path / "x.gz").write_bytes(damage(gzip.compress(os.urandom(1000))))
    with pytest.raises(DataError, match="gzip data ends early or is damaged"):
        read_plain(tmp_path / "x.gz")


def test_a_gzip_bomb_is_refused_without_unpacking_it_into_memory(tmp_path):
    packer = zlib.compressobj(9, wbits=31)
    bomb = b"".join(packer.compress(bytes(2**20)) for _ in range(256)) + packer.flush()
    (tmp_path / "bomb.gz").write_bytes(bomb)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"bomb\.gz: the gzip data unpacks to more than 32"):
            read_plain(tmp_path / "bomb.gz")
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()


def test_json_files_are_read_whether_gzip_or_not(tmp_path):
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf" + json.dumps({"a": "ü"}).encode())
    (tmp_path / "b.json").write_bytes(gzip.compress(b'{"a": "\xc3\xbc"}'))
    assert read_json(tmp_path / "a.json") == read_json(tmp_path / "b.json") == {"a": "ü"}
    (tmp_path / "c.json").write_bytes(b'{"a": \n')
    with pytest.raises(DataError, match=r"c\.json, line 2, column 1: not JSON .* Expected 1\."):
        read_json(tmp_path / "c.json", "Expected 1.")


def test_a_file_cannot_take_the_name_of_a_folder_and_long_names_are_written(tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(StorageError, match="taken cannot be written: Is a directory"):
        write_text(tmp_path / "taken", "x")
    write_text(tmp_path / ("long" * 60), "x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["long" * 60, "taken"]


def test_an_error_about_another_file_is_not_taken_for_one_about_the_target(tmp_path):
    with pytest.raises(FileNotFoundError, match="elsewhere"), atomic_path(tmp_path / "a"):
        (tmp_path / "elsewhere").read_bytes()
    with (
        pytest.raises(StorageError, match="a cannot be written"),
        atomic_path(tmp_path / "a") as temporary,
    ):
        temporary.unlink()
    assert not any(tmp_path.iterdir())
