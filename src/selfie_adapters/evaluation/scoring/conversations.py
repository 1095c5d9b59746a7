"""Short conversations: what a chat model is asked, its text as turns, turns as marked tokens."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from selfie_adapters.chat import ChatModel, ChatRequest, Message
from selfie_adapters.errors import PromptError
from selfie_adapters.inference.generate import row_seed
from selfie_adapters.model.chat_template import render
from selfie_adapters.model.tokens import leading, plain_begin

BEGUN = "[USER]"
# The label comes last, so that a model in this process reads the rest once for all labels.
PROMPT = """\
Write a short conversation in which a user and an assistant speak about the theme below, with many \
words that belong to it. Mark each turn of the user with [USER] and each turn of the assistant \
with [ASSISTANT].

Theme: {label}"""
_MARKER = re.compile(r"\[(USER|ASSISTANT)\]")


@dataclass(frozen=True)
class Writing:
    """How many conversations a label gets, how they are sampled (the published values), and what
    is asked.

    prompt: the user turn, in which every "_" is replaced by the label; None takes this project's
    own. system: a system turn before it.
    """

    conversations: int = 10
    max_tokens: int = 100
    temperature: float = 0.7
    top_p: float = 0.9
    prompt: str | None = None
    system: str | None = None

    @property
    def begun(self) -> str:
        """How the answer begins, where this project asks; a prompt of one's own begins nothing."""
        return BEGUN if self.prompt is None else ""

    def messages(self, label: str) -> tuple[Message, ...]:
        """The turns that ask for a conversation."""
        template = self.prompt
        content = PROMPT.format(label=label) if template is None else template.replace("_", label)
        asked = Message("user", content)
        return (Message("system", self.system), asked) if self.system else (asked,)


def requests_for(labels: Sequence[str], how: Writing, seed: int) -> list[ChatRequest]:
    """how.conversations requests for each of a latent's labels, label by label; none for "".

    A seed is made of the label's text and how often it was asked for before: equal labels of
    different latents are the same requests, a label twice in `labels` gets new conversations.
    """
    asked: dict[str, int] = {}
    requests: list[ChatRequest] = []
    for label in filter(None, labels):
        messages = how.messages(label)
        for _ in range(how.conversations):
            number = asked[label] = asked.get(label, -1) + 1
            requests.append(
                ChatRequest(
                    messages=messages,
                    max_tokens=how.max_tokens,
                    temperature=how.temperature,
                    top_p=how.top_p,
                    seed=row_seed(seed, label, number),
                    begun=how.begun,
                )
            )
    return requests


def write_conversations(
    writer: ChatModel, labels: Sequence[Sequence[str]], how: Writing, seed: int
) -> list[list[list[str]]]:
    """Conversations with their markers for each of each latent's labels, all asked for at once.

    None for an empty label; "" where the writer wrote nothing.
    """
    asked = [requests_for(of_latent, how, seed) for of_latent in labels]
    answers = iter(writer.answer([request for requests in asked for request in requests]))
    return [
        [_take(answers, how.conversations if label else 0, how.begun) for label in of]
        for of in labels
    ]


def _take(answers: Iterator[str], count: int, begun: str) -> list[str]:
    texts = [next(answers) for _ in range(count)]
    return [f"{begun}{text}" if text.strip() else "" for text in texts]


def parse_conversation(text: str) -> list[Message]:
    """Turns of a text marked with [USER] and [ASSISTANT], in capitals.

    What precedes the first marker is the user's; empty turns are omitted; line breaks inside
    a turn become spaces. A text of whitespace has no turns.
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
            "cannot be told apart. Use a tokenizer whose template inserts turns unchanged."
        )
    return inside
