from __future__ import annotations

import json
from typing import Any

import pytest

from selfie_adapters.chat.request import Message, read_messages
from selfie_adapters.errors import DataError, MissingFileError

TURNS: list[dict[str, Any]] = [
    {"role": "system", "content": "Be short."},
    {"role": "user", "content": "What is an owl?"},
    {"role": "assistant", "content": "A bird."},
]


@pytest.mark.parametrize("content", [TURNS, {"messages": TURNS, "id": 3}])
def test_messages_are_read_in_order(content, tmp_path):
    file = tmp_path / "m.json"
    file.write_text(json.dumps(content))
    assert read_messages(file) == tuple(Message(turn["role"], turn["content"]) for turn in TURNS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "found an empty list. A list of messages is expected"),
        ("hello", "found str"),
        ({"turns": TURNS}, "found dict"),
        (["hello"], r"message 0: 'hello'; an object with role and content"),
        ([*TURNS[:1], {"role": "usr", "content": "x"}], r'message 1: role is \'usr\'.*"user"'),
        (
            [{"role": "user", "content": [{"type": "image"}]}],
            "content is list; a string is expected",
        ),
        ([{"role": ["user"], "content": "x"}], "role is"),
    ],
)
def test_what_is_no_conversation_is_refused(content, message, tmp_path):
    file = tmp_path / "m.json"
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match=message):
        read_messages(file)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(MissingFileError, match="nowhere.json"):
        read_messages(tmp_path / "nowhere.json")
