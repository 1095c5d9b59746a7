"""What is asked of a chat model, what it must be able to do, and what asking will cost."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, get_args, get_type_hints

from selfie_adapters.errors import DataError, nearest
from selfie_adapters.files import existing_file, read_json


class Message(NamedTuple):
    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True)
class ChatRequest:
    """One question. temperature 0 is greedy; seed makes sampling repeatable where the model can.

    begun: text that the answer starts with (the model continues it; it is not returned).
    """

    messages: tuple[Message, ...]
    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    begun: str = ""

    def digest(self, model: str, weights: str | None = None) -> str:
        """Key of the answer: the same question to the same model has the same one everywhere.

        weights: digest of the model's weights, where they are known.
        """
        asked = {"model": model, **asdict(self)}
        if weights is not None:
            asked["weights"] = weights
        text = json.dumps(asked, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:32]


class ChatModel(Protocol):
    """The model in process (`InProcessChat`) or a server (`OpenAIChat`)."""

    name: str

    @property
    def weights(self) -> str | None:
        """Digest of the weights that answer, in this process; None where they are a server's."""
        ...

    def answer(
        self,
        requests: Sequence[ChatRequest],
        done: Callable[[int, str], None] = lambda _number, _text: None,
    ) -> list[str]:
        """Answers in the order of `requests`; `done(number, text)` is called as each one comes.

        Raises DownloadError when a server does not answer after several attempts; what was
        answered before has been handed to `done`.
        """
        ...


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
            f"{place}: content is {type(content).__name__}; a string is expected (images and tool "
            "calls are not read)."
        )
    return Message(role, content)


_CHARACTERS_PER_TOKEN = 3.5  # English text has some 4; a little high is the safe side
_TOKENS_PER_MESSAGE = 8  # role marks


@dataclass(frozen=True)
class Cost:
    """input_tokens: an estimate from the number of characters. output_tokens: an upper bound."""

    requests: int
    input_tokens: int
    output_tokens: int

    def price(self, input_price: float, output_price: float) -> float:
        """In whatever money the prices, each for a million tokens, are in."""
        return (self.input_tokens * input_price + self.output_tokens * output_price) / 1e6


def cost_of(requests: Sequence[ChatRequest]) -> Cost:
    """The most that `requests` can cost."""
    characters = sum(len(m.content) for r in requests for m in r.messages)
    characters += sum(len(r.begun) for r in requests)
    messages = sum(len(r.messages) for r in requests)
    return Cost(
        len(requests),
        round(characters / _CHARACTERS_PER_TOKEN) + _TOKENS_PER_MESSAGE * messages,
        sum(r.max_tokens for r in requests),
    )
