from __future__ import annotations

import json
import math
import tracemalloc

import pytest

from selfie_adapters.errors import DataError
from selfie_adapters.files.json_text import parse_json, without_not_finite


@pytest.mark.parametrize("value", [None, 1.5, "ü \U0001f600 \u2028", {"a": [1, {"b": None}]}, []])
def test_what_json_writes_is_read_with_and_without_a_byte_order_mark(value):
    for ascii_only in (True, False):
        text = json.dumps(value, ensure_ascii=ascii_only)
        assert parse_json(text, "x") == value
        assert parse_json(text.encode(), "x") == value
        assert parse_json(b"\xef\xbb\xbf" + text.encode(), "x") == value


def test_half_of_a_surrogate_pair_becomes_the_replacement_character():
    found = parse_json(rb'{"\ud83d": ["a \ud83d", "\ude00", "\ud83d\ude00", "\\ud83d"]}', "x")
    assert found == {"\ufffd": ["a \ufffd", "\ufffd", "\U0001f600", "\\ud83d"]}
    assert parse_json('["\ud83d"]', "x") == ["\ufffd"]  # in a str, not escaped
    json.dumps(found, ensure_ascii=False).encode()  # can be written


def test_the_numbers_python_writes_are_read():
    found = parse_json(rb'[NaN, Infinity, -Infinity, "\ud83d"]', "x")
    assert math.isnan(found[0])
    assert found[1:] == [math.inf, -math.inf, "\ufffd"]


def test_equal_keys():
    assert parse_json(b'{"a": 1, "a": 2}', "x") == {"a": 2}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "x: empty; JSON"),
        (b" \n", "x: empty; JSON"),
        (b"[1,\n 2}", "x, line 2, column 3: not JSON"),
        (b'{"a": [1, 2', "x, line 1, column 12: not JSON .it ends early"),
        (b"[1] 2", "line 1, column .: not JSON .trailing"),
        (b'["a\\x"]', "line 1, column 6: not JSON"),
        ("[1]".encode("utf-16"), "x: UTF-16"),
        ("[1]".encode("utf-16-le"), "x: UTF-16"),
        ("[1]".encode("utf-32"), "x: UTF-16 or UTF-32"),
        ('[\n"ü"]'.encode("latin-1"), "x, line 2, column 2: not UTF-8 text .byte 0xfc"),
        (b'["\xed\xa0\x80"]', "x, line 1, column 3: not UTF-8"),
        (b"[" * 100_000, "x: nested too deeply. Expected a list"),
        (b'{"a":' * 100_000, "x: nested too deeply"),
        (b"[" * 100_000 + b"NaN", "x: nested too deeply"),
        (b"[" + b"9" * 5000 + b"]", "x: integer value out of range"),
        (b"[NaN, " + b"9" * 5000 + b"]", "x: a number is out of range"),
        (b"[NaN, 1", "x, line 1, column 8: not JSON"),
        (b"[1e999]", "x: number out of range"),
        (b"\0\0\0\0", "x: UTF-16"),
        (b'["\\ud83', "not JSON"),
    ],
)
def test_anything_else_is_an_error_with_its_position(data, message):
    with pytest.raises(DataError, match=message):
        parse_json(data, "x", "Expected a list.")


def test_documents_that_grow_in_memory_are_refused_before_they_do():
    data = b"[" + b"[],{}," * 2_000_000 + b"1]"
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="bytes of tiny values"):
            parse_json(data, "x")
        assert tracemalloc.get_traced_memory()[1] < 2 * len(data)
    finally:
        tracemalloc.stop()


def test_large_documents_with_nan_are_read_or_their_error_has_its_place():
    text = "text with NaN and Infinity in it" * 10
    rows = ",\n".join([f'{{"a": NaN, "b": "{text}"}}'] * 70_000)
    found = parse_json(f"[{rows}]", "x")
    assert len(found) == 70_000
    assert math.isnan(found[-1]["a"])
    assert found[-1]["b"] == text
    # Above 16 MiB the memory is measured first.
    tiny = "[" + ",\n".join(["NaN, -Infinity"] * 1_500_000)
    with pytest.raises(DataError, match="x, line 1500000, column 15: not JSON"):
        parse_json(tiny, "x")
    with pytest.raises(DataError, match="bytes of tiny values"):
        parse_json(tiny + "]", "x")


def test_not_finite_numbers_are_replaced_outside_of_strings_only():
    text = rb'{"NaN": [NaN, -Infinity, "a\"NaN"], "b": Infinity}'
    assert without_not_finite(text) == rb'{"NaN": [null, null     , "a\"NaN"], "b": null    }'
    assert len(without_not_finite(text, b"0")) == len(text)
