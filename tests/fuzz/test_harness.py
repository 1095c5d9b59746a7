"""The harness notices what it is there to notice."""

from __future__ import annotations

import json
import random
import time

import pytest

from fuzz import harness
from fuzz.mutations import damage_bytes, damage_json, damage_value
from selfie_adapters.errors import DataError


def _valid(_rng):
    return b'{"a": [1, 2]}'


def _refuse(path):
    raise DataError(f"{path}: no")


def _twice(read):
    """Nothing on the undamaged input, then `read`."""
    calls = []

    def once(path):
        calls.append(path)
        if len(calls) > 1:
            read(path)

    return once


def test_own_errors_and_results_pass(tmp_path):
    harness.run("x", tmp_path, _valid, damage_json, lambda path: None, inputs=20)
    harness.run("x", tmp_path, _valid, damage_json, _twice(_refuse), inputs=20)


@pytest.mark.parametrize(
    "error", [KeyError("a"), RecursionError(), DataError("no name"), SystemExit()]
)
def test_other_errors_and_errors_without_the_name_fail(tmp_path, error):
    def read(path):
        raise error

    with pytest.raises(AssertionError, match="x, seed .*, input 0"):
        harness.run("x", tmp_path, _valid, damage_json, _twice(read), inputs=20)


def test_an_undamaged_input_must_be_read(tmp_path):
    with pytest.raises(DataError):
        harness.run("x", tmp_path, _valid, damage_json, _refuse, inputs=1)


def test_hangs_and_memory_fail(tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "SECONDS", 0.05)
    with pytest.raises(AssertionError, match="Hang"):
        harness.run("x", tmp_path, _valid, damage_json, _twice(lambda p: time.sleep(5)), inputs=2)
    monkeypatch.setattr(harness, "SECONDS", 30)
    with pytest.raises(AssertionError, match="MiB of memory"):
        harness.run("x", tmp_path, _valid, damage_json, _twice(lambda p: b"x" * 2**27), inputs=2)


def test_several_files_are_given_as_a_folder(tmp_path):
    seen = []

    def read(folder):
        seen.append({str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.json")})

    valid = {"a.json": b"[1]", "b/c.json": b"[2]"}
    harness.run("x", tmp_path, lambda _: valid, damage_json, read, inputs=30)
    assert seen[0] == valid
    assert all(one.keys() == valid.keys() for one in seen)
    changed = [sum(one[name] != valid[name] for name in valid) for one in seen[1:]]
    assert max(changed) == 1
    assert sum(changed) > 20


def test_equal_seeds_give_equal_inputs():
    data = json.dumps({"a": [1, {"b": "c"}], "d": None}).encode()
    for damage in (damage_bytes, damage_json):
        first = [damage(random.Random(i), data) for i in range(200)]
        assert first == [damage(random.Random(i), data) for i in range(200)]
        assert len(set(first)) > 100


def test_damage_leaves_the_original_alone():
    value = {"a": [1, {"b": "c"}]}
    for i in range(200):
        damage_value(random.Random(i), value)
    assert value == {"a": [1, {"b": "c"}]}
