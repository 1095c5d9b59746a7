"""How an answer is generated."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sampling:
    """How an answer is generated. temperature 0 is greedy; seeds are given per row.

    top_p: the nucleus, in (0, 1]. repetition_penalty: 1 changes nothing. max_new_tokens: per
    answer. stop_at_quote: whether a closing quote ends an answer, or only the end token does.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    max_new_tokens: int = 30
    stop_at_quote: bool = True
