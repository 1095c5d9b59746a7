from __future__ import annotations

from pathlib import Path

import pytest

from selfie_adapters.errors import DataError
from selfie_adapters.files.text_lines import read_lines, text_lines


def lines(data: bytes) -> list[tuple[int, str]]:
    return [*text_lines(Path("a.txt"), data)]


def test_lines_have_the_numbers_that_an_editor_shows():
    data = b"\xef\xbb\xbfone\r\n\n \t\n two \nthree"
    assert lines(data) == [(1, "one"), (4, " two "), (5, "three")]


def test_only_line_ends_end_a_line():
    # Characters that str.splitlines takes for the end of one.
    assert lines("a\u2028b\x85c\x0bd\n".encode()) == [(1, "a\u2028b\x85c\x0bd")]


def test_a_line_that_is_not_utf_8_is_named():
    with pytest.raises(DataError, match=r"a\.txt, line 3: not UTF-8 text"):
        lines(b"one\n\ncaf\xe9\n")


def test_more_short_lines_than_fit_into_memory_are_refused(tmp_path):
    file = tmp_path / "a.txt"
    file.write_bytes(b"a\n" * 300_000)
    assert len(read_lines(file)) == 300_000  # 51 MB of objects
    file.write_bytes(b"a\n" * 500_000)
    with pytest.raises(DataError, match=r"a\.txt: 1,000,000 bytes of tiny values"):
        read_lines(file)
