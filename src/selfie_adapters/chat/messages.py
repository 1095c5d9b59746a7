"""Conversations from a file: a JSON list of messages, each with role and content."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args, get_type_hints

from selfie_adapters.chat.request import Message
from selfie_adapters.errors import DataError, nearest
from selfie_adapters.files import existing_file, read_json

_ROLES: tuple[str, ...] = get_args(get_type_hints(Message)["role"])
_EXPECTED = (
    'A list of messages is expected: [{"role": "user", "content": "Hello"}], or that list as '
    '"messages" of an object.'
)


def read_messages(path: str | Path) -> tuple[Message, ...]:
    """The messages of one conversation, in order; at least one.

    Raises MissingFileError, DataError naming the file and the message.
    """
    file = existing_file(path)
    found = read_json(file, _EXPECTED)
    if isinstance(found, dict) and "messages" in found:
        found = found["messages"]
    if not isinstance(found, list) or not found:
        what = "an empty list" if isinstance(found, list) else type(found).__name__
        raise DataError(f"{file}: found {what}. {_EXPECTED}")
    return tuple(_message(f"{file}, message {n}", one) for n, one in enumerate(found))


def _message(place: str, one: Any) -> Message:
    if not isinstance(one, dict) or not {"role", "content"} <= one.keys():
        raise DataError(f"{place}: {one!r:.60}; an object with role and content is expected.")
    role, content = one["role"], one["content"]
    if role not in _ROLES:
        hint = nearest(str(role), _ROLES)
        raise DataError(f"{place}: role is {role!r:.40}; one of {', '.join(_ROLES)}. {hint}")
    if not isinstance(content, str):
        raise DataError(
            f"{place}: content is {type(content).__name__}; a text is expected (images and tool "
            "calls are not read)."
        )
    return Message(role, content)
