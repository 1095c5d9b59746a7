from __future__ import annotations

import json
import math
import resource
import time

import pytest

from selfie_adapters.config.yaml_reading import MAX_BYTES, parse_yaml, shortened
from selfie_adapters.errors import DataError

LAUGHS = "".join(
    f"{name}: &{name} [{', '.join(['*' + before if before else 'x'] * 10)}]\n"
    for before, name in zip(["", *"abcdefgh"], "abcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("# nothing\n", None),
        (
            "a: 1\nb: [x, 2.5, true, no, null, ~]",
            {"a": 1, "b": ["x", 2.5, True, False, None, None]},
        ),
        ("1: x\ntrue: y\n~: z", {"1": "x", "true": "y", "~": "z"}),
        ("a: 2026-11-26", {"a": "2026-11-26"}),
        ("a: 2001-99-99", {"a": "2001-99-99"}),
        ("layers: 4:28:4", {"layers": "4:28:4"}),
        ("a: 1:2.5", {"a": "1:2.5"}),
        ("a: [0x1f, 0b11, 010, -5, +7, 1_000, 1e3]", {"a": [31, 3, 8, -5, 7, 1000, 1000.0]}),
        ("a: [.inf, -.INF, 1.5e+3, 1_0.5]", {"a": [math.inf, -math.inf, 1500.0, 10.5]}),
        ("a: [=, !!str 5, !!int '5']", {"a": ["=", "5", 5]}),
        ("a: &x [1]\nb: *x", {"a": [1], "b": [1]}),
        ("a: &x {k: 1, l: 2}\nb: {<<: *x, l: 3}", {"a": {"k": 1, "l": 2}, "b": {"k": 1, "l": 3}}),
        ("a: &x {k: 1}\nb: &y {k: 2, m: 4}\nc: {<<: [*x, *y]}", None),
        ('{"a":\t1,\n\t"b":\t[2\t,\t3],\t"c": "\\ud83e\\udd89"}', {"a": 1, "b": [2, 3], "c": "🦉"}),
    ],
)
def test_plain_values(text, value):
    found = parse_yaml(text, "x")
    if "<<: [*x" in text:
        found, value = found["c"], {"k": 1, "m": 4}
    assert found == value
    assert repr(found) == repr(value)  # 1 is not True


def test_json_is_read_as_json_reads_it():
    value = {"a": [1, -2.5, 1e-7, True, None, 'ä\n"\\/'], "long": {"b" * 50: list(range(50))}}
    for indent in (None, 2, "\t"):
        assert parse_yaml(json.dumps(value, indent=indent), "x") == value


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings_with_their_mark(encoding):
    assert parse_yaml("a: ü🦉".encode(encoding), "x") == {"a": "ü🦉"}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("a: [1", r"x, line 1: not valid YAML"),
        ("a: 1\nb: 2\na: 3", r"x, line 3: the key a is written twice"),
        ("a: 1\n---\nb: 2", "another document"),
        ("a: !!int ''", "line 1: not valid YAML: '' is not an integer"),
        ("a: !!bool x", "'x' is neither true nor false"),
        ("a: !!float x", "'x' is no number"),
        ("a: !!map [a]", "the tag !!map"),
        ("a: !!seq {a: b}", "the tag !!seq"),
        ("a: !!int [1]", "the tag !!int"),
        ("a: !!timestamp x", "the tag !!timestamp is not read"),
        ("a: !!binary aGk=", "the tag !!binary"),
        ("a: !!python/object/apply:os.system [true]", "the tag !!python/object/apply:os.system"),
        ("a: !mine x", "the tag !mine"),
        ("a:\n  ? [1]\n  : 2", "line 2: a key is a list or a mapping"),
        ("a: {<<: 3}", "<< merges mappings"),
        ("a: &x [*x]", "nested deeper than 40, or an alias inside itself|recursive"),
        ("a: &x {<<: *x}", "nested deeper than 40, or an alias inside itself|recursive"),
        ("a: " + "9" * 5000, "a number of 5,000 digits"),
        ("a: 0x" + "f" * 5000, "a number of 5,002 digits"),
        ("a: 1." + "9" * 5000, "a number of 5,002 characters"),
        ("[" * 100_000, "nested deeper than 40"),
        ("{a: " * 1000, "nested deeper than 40"),
        ("- " * 1000, "nested deeper than 40"),
        (LAUGHS, "more than 100,000 values, counting those of aliases"),
        ('a: "\\ud800"', "line 1: half of a surrogate pair"),
        ("a: \ud800", "not valid YAML"),
        ('a: "\\0"', "a NUL character"),
        ('a: "\\UFFFFFFFF"', "not valid YAML"),
        ("a: b\0", "not valid YAML"),
        ("a: \x1b[2J", "not valid YAML"),
        ("a:\n\tb: 1", "line 2: not valid YAML"),
        (b"mod\xe9l: x", "not valid YAML .*position 3"),
        (b"\xff\xfea", "not valid YAML"),
        (b"a: " + b"x" * MAX_BYTES, "more than 1,048,576 bytes"),
    ],
)
def test_everything_else_is_an_error_that_names_the_line(data, message):
    with pytest.raises(DataError, match=message) as raised:
        parse_yaml(data, "x")
    assert str(raised.value).startswith("x")
    assert len(str(raised.value)) < 400


def test_hostile_text_costs_neither_time_nor_memory():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    for text in (
        LAUGHS,
        "[" + "1," * 500_000,
        "[" * 100_000,
        "&a " * 1000,
        "? " * 10_000,
        "a: " * 10_000,
    ):
        with pytest.raises(DataError):
            parse_yaml(text, "x")
    assert time.process_time() - started < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024  # kB


def test_long_text_is_cut_in_the_middle():
    assert shortened("abc") == "abc"
    assert shortened("a\n  b") == "a b"
    cut = shortened("a" * 500 + "end")
    assert len(cut) < 125
    assert cut.endswith("end")
