"""What is asked of a chat model, and what it must be able to do."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, NamedTuple, Protocol


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
