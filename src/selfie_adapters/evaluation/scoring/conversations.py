"""Short written conversations: from a writer's text to turns, and from turns to marked tokens."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from selfie_adapters.chat import Message
from selfie_adapters.errors import PromptError
from selfie_adapters.model.chat_template import render
from selfie_adapters.model.tokens import leading, plain_begin

_MARKER = re.compile(r"\[(USER|ASSISTANT)\]")


def parse_conversation(text: str) -> list[Message]:
    """Turns of a text marked with [USER] and [ASSISTANT], in capitals.

    What precedes the first marker is the user's; empty turns are omitted; line breaks inside
    a turn become blanks. A text of blanks has no turns.
    """
    before, *rest = _MARKER.split(text)
    roles = ["user", *(marker.lower() for marker in rest[::2])]
    contents = [_one_line(content) for content in (before, *rest[1::2])]
    return [
        Message("assistant" if role == "assistant" else "user", content)
        for role, content in zip(roles, contents, strict=True)
        if content
    ]


def _one_line(text: str) -> str:
    return " ".join(line.strip() for line in text.splitlines() if line.strip())


@dataclass(frozen=True)
class ChatTokens:
    """A conversation in the chat template. content[i]: token i is of a turn's text, and neither
    the template's nor special."""

    ids: tuple[int, ...]
    content: tuple[bool, ...]


def chat_tokens(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> ChatTokens:
    """Token ids of `messages` in the tokenizer's chat template, without a generation prompt.

    A token that holds a character of a turn counts as content, special tokens never do.
    Raises PromptError where there is no template, no turn, or the template refuses the turns
    (some require the user first, and alternating turns).
    """
    if not messages:
        raise PromptError("a conversation without turns.")
    text = _rendered(tokenizer, messages)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    inside = _content_characters(tokenizer, messages, text)
    special = set(tokenizer.all_special_ids)
    ids: list[int] = encoded["input_ids"]
    offsets: list[tuple[int, int]] = encoded["offset_mapping"]
    content = tuple(
        token not in special and any(inside[start:stop])
        for token, (start, stop) in zip(ids, offsets, strict=True)
    )
    begin = plain_begin(tokenizer)
    if begin is not None and not leading(ids, begin):  # a template that leaves it to the tokenizer
        ids, content = [begin, *ids], (False, *content)
    return ChatTokens(tuple(ids), content)


def _rendered(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> str:
    turns: list[dict[str, Any]] = [message._asdict() for message in messages]
    return render(tokenizer, turns, generation=False)


def _content_characters(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], text: str
) -> list[bool]:
    """Which characters of `text` are the turns': the template is rendered once more around marks
    that occur nowhere else, so a turn that repeats the template's own words misleads nobody."""
    marks = [f"\ue000{number}\ue001" for number in range(len(messages))]
    skeleton = _rendered(
        tokenizer, [Message(m.role, mark) for m, mark in zip(messages, marks, strict=True)]
    )
    inside: list[bool] = []
    rest = skeleton
    for message, mark in zip(messages, marks, strict=True):
        before, found, rest = rest.partition(mark)
        if not found:
            break
        inside += [False] * len(before) + [True] * len(message.content)
    inside += [False] * len(rest)
    if len(inside) != len(text) or any(m not in skeleton for m in marks):
        raise PromptError(
            "the chat template changes the text of its turns, so template and content tokens "
            "cannot be told apart. Use a tokenizer whose template puts turns in as they are."
        )
    return inside
