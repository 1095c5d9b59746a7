from __future__ import annotations

import gzip
import json
import resource
import signal

import pytest

from selfie_adapters.errors import DataError, StorageError
from selfie_adapters.files.json_lines import append_jsonl, read_jsonl, write_jsonl


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
    with pytest.raises(DataError, match="line 2, column 6: not JSON"):
        read_jsonl(path)


def test_a_bad_line_that_was_written_whole_is_an_error(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n{"a"\n')
    with pytest.raises(DataError, match="line 2"):
        read_jsonl(path)


@pytest.mark.parametrize("cut", range(1, len('{"label": "größer 東京"}'.encode())))
def test_a_line_torn_at_any_byte_is_dropped_and_repaired_by_the_next_append(tmp_path, cut):
    path = tmp_path / "rows.jsonl"
    line = '{"label": "größer 東京"}'.encode()
    path.write_bytes(line + b"\n" + line[:cut])
    assert read_jsonl(path) == [{"label": "größer 東京"}]
    append_jsonl(path, {"next": 1}, {"next": 2})
    assert read_jsonl(path) == [{"label": "größer 東京"}, {"next": 1}, {"next": 2}]
    assert path.read_bytes() == line + b'\n{"next": 1}\n{"next": 2}\n'


def test_a_complete_row_without_its_newline_stays_when_the_next_one_comes(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}')
    append_jsonl(path, {"a": 2})
    assert read_jsonl(path) == [{"a": 1}, {"a": 2}]


def test_a_torn_line_longer_than_a_block_is_removed_and_so_is_a_file_of_zeros(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n{"a": "' + "x" * 300_000)
    append_jsonl(path, {"a": 2})
    assert path.read_text() == '{"a": 1}\n{"a": 2}\n'
    path.write_bytes(bytes(5000))  # what a power cut can leave
    append_jsonl(path, {"a": 2})
    assert path.read_text() == '{"a": 2}\n'


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (b'{"a": "\xff"}', "not UTF-8"),
        (b"[1, 2]", r"a JSON object is expected, found \[1, 2\]\. Remove the line or restore"),
        (b"null", "a JSON object is expected, found None"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}", "out of range"),
        (b"\0\0\0", "not text at all"),
    ],
)
def test_a_bad_line_names_its_position_and_what_it_is(tmp_path, line, found):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n' + line + b'\n{"a": 3}\n')
    with pytest.raises(DataError, match=rf"rows\.jsonl, line 2[:,].*{found}"):
        read_jsonl(path)


def test_windows_line_ends_byte_order_marks_and_blank_lines_are_read(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\r\n{"a": 2}\r\n')
    assert read_jsonl(path) == [{"a": 1}, {"a": 2}]


def test_a_disk_that_fills_up_in_a_row_leaves_the_rows_before_it(tmp_path):
    path = tmp_path / "rows.jsonl"
    append_jsonl(path, {"a": 1})
    before = path.read_bytes()
    limit = (len(before) + 5, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
    previous = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    try:
        with pytest.raises(StorageError, match=r"rows\.jsonl cannot be written"):
            append_jsonl(path, {"a": 2, "text": "longer than what is left"})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, previous)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == before
    append_jsonl(path, {"a": 3})
    assert read_jsonl(path) == [{"a": 1}, {"a": 3}]


def test_a_row_that_cannot_be_opened_names_the_file(tmp_path):
    with pytest.raises(StorageError, match="cannot be written: No such file"):
        append_jsonl(tmp_path / "no" / "rows.jsonl", {"a": 1})
    with pytest.raises(StorageError, match="cannot be written: Is a directory"):
        append_jsonl(tmp_path, {"a": 1})


def test_rows_are_gzip_where_the_name_ends_in_gz(tmp_path):
    rows = [{"text": "é\n"}, {"n": 2}]
    assert write_jsonl(tmp_path / "a.jsonl.gz", rows) == 2
    write_jsonl(tmp_path / "b.jsonl.gz", rows)
    packed = (tmp_path / "a.jsonl.gz").read_bytes()
    assert packed == (tmp_path / "b.jsonl.gz").read_bytes()
    assert [json.loads(line) for line in gzip.decompress(packed).splitlines()] == rows
    with pytest.raises(ZeroDivisionError):
        write_jsonl(tmp_path / "a.jsonl.gz", ({"n": 1 // n} for n in (1, 0)))
    assert (tmp_path / "a.jsonl.gz").read_bytes() == packed
