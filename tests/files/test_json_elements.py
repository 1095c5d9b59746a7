from __future__ import annotations

import json
import random
from typing import Any

import msgspec
import pytest

from selfie_adapters.files.json_elements import JsonArray


def elements(text: str) -> list[Any]:
    array = JsonArray(msgspec.json.decode(text.encode(), type=msgspec.Raw))
    found = [json.loads(bytes(one)) for one in array]
    assert [json.loads(bytes(one)) for one in array] == found  # any number of times
    assert bool(array) == bool(found)
    return found


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        " [ \n ] ",
        "[1]",
        '[{"a": 1}, {"b": [1, 2, "x]}"]} ,{}]',
        '[{"a": {"b": [{"c": 1}]}}, [], [[1], 2], null, -1.5e3, true, "a,b]", "\\"", "\\\\"]',
        '[{"labels": ["a \\" } ] \\\\"]}]',
        '["日本", {"ключ": "🦉, ]"}]',
    ],
)
def test_elements_are_those_of_the_decoded_array(text):
    assert elements(text) == json.loads(text)


def test_random_arrays():
    draw = random.Random(0)

    def value(depth: int) -> Any:
        kind = draw.randrange(6 if depth else 3)
        if kind < 2:
            return draw.choice([0, -1.5, None, True])
        if kind == 2:
            return "".join(draw.choices('ab,:[]{}"\\ é\n', k=draw.randrange(6)))
        if kind == 3:
            return [value(depth - 1) for _ in range(draw.randrange(4))]
        return {str(value(0)): value(depth - 1) for _ in range(draw.randrange(4))}

    for number in range(500):
        array = [value(3) for _ in range(draw.randrange(5))]
        assert elements(json.dumps(array, indent=number % 3 or None)) == array
