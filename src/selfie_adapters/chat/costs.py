"""What asking will cost, before anything is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from selfie_adapters.chat.request import ChatRequest

_CHARACTERS_PER_TOKEN = 3.5  # English text has some 4; a little high is the safe side
_TOKENS_PER_MESSAGE = 8  # role marks


@dataclass(frozen=True)
class Cost:
    """input_tokens: an estimate from the number of characters. output_tokens: an upper bound."""

    requests: int
    input_tokens: int
    output_tokens: int

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.requests + other.requests,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
        )

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
