from __future__ import annotations

import json
from typing import Any

import pytest

from selfie_adapters.errors import DataError
from selfie_adapters.files.keyed_rows import KeyedRows


def parse(row: dict[str, Any], where: str) -> tuple[int, str] | None:
    if "about" in row:
        return None
    if not isinstance(row.get("n"), int):
        raise DataError(f"{where}: n is expected")
    return row["n"], row["text"]


def opened(path, first=None):
    return KeyedRows(path, parse, lambda n, text: {"n": n, "text": text}, first)


def test_rows_are_appended_and_found_again(tmp_path):
    rows = opened(tmp_path / "a.jsonl")
    assert not rows
    assert not rows.path.exists()
    rows.add({3: "x", 1: "y"})
    rows.add({2: "é\n"})
    assert dict(rows) == dict(opened(rows.path)) == {3: "x", 1: "y", 2: "é\n"}
    assert list(opened(rows.path)) == [3, 1, 2]
    assert len(rows.path.read_bytes().splitlines()) == 3


def test_a_torn_last_line_does_not_count_and_the_next_append_removes_it(tmp_path):
    path = tmp_path / "a.jsonl"
    opened(path).add({1: "x", 2: "y"})
    complete = path.read_bytes()
    for cut in range(complete.index(b"\n") + 2, len(complete) - 1):
        path.write_bytes(complete[:cut])
        rows = opened(path)
        assert dict(rows) == {1: "x"}
        rows.add({2: "y"})
        assert path.read_bytes() == complete


def test_of_two_rows_with_one_key_the_later_counts(tmp_path):
    rows = opened(tmp_path / "a.jsonl")
    rows.add({1: "x"})
    rows.add({1: "z"})
    again = opened(rows.path)
    assert dict(again) == {1: "z"}
    assert again.where(1) == f"{rows.path}, line 2"


def test_replacing_writes_the_first_row_and_the_values_given(tmp_path):
    rows = opened(tmp_path / "a.jsonl", first={"about": 1})
    rows.add({1: "x", 2: "y"})
    rows.replace({2: "y"})
    lines = [json.loads(line) for line in rows.path.read_text().splitlines()]
    assert lines == [{"about": 1}, {"n": 2, "text": "y"}]
    assert dict(opened(rows.path)) == dict(rows) == {2: "y"}


def test_a_row_of_another_kind_is_named_with_its_line(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"n": 1, "text": "x"}\n{"n": "1"}\n')
    with pytest.raises(DataError, match=r"a\.jsonl, line 2: n is expected"):
        opened(tmp_path / "a.jsonl")


def test_what_is_read_is_a_copy(tmp_path):
    path = tmp_path / "a.jsonl"
    rows = KeyedRows(
        path, lambda row, _: (row["n"], row["found"]), lambda n, f: {"n": n, "found": f}
    )
    rows.add({1: [0.1, 1e300]})
    rows[1].append(5)
    assert rows[1] == [0.1, 1e300]
    with pytest.raises(KeyError):
        rows[2]


def test_more_rows_without_content_than_fit_into_memory_are_refused(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(f'{{"n":{n},"text":""}}\n' for n in range(400_000)))
    with pytest.raises(DataError, match=r"a\.jsonl: [\d,]+ bytes of tiny values"):
        opened(path)
