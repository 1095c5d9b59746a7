"""One label of one vector, and which settings can make labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from selfie_adapters.config.shared import Sampling
from selfie_adapters.errors import ConfigError


@dataclass(frozen=True)
class Label:
    """One answer about one vector.

    text: the label, up to the closing quote, whitespace around it removed. raw: all that was
    written but special tokens. log_prob: sum over the `tokens` tokens written, in nats. ended: the
    model closed the quote or ended its turn; otherwise the label was cut at max_new_tokens.
    zero_log_prob: the same tokens' log-probability after the zero vector's soft token. ids: those
    tokens.
    """

    text: str
    raw: str
    scale: float
    sample: int
    seed: int
    log_prob: float
    tokens: int
    ended: bool
    zero_log_prob: float = math.nan
    ids: tuple[int, ...] = field(default=(), repr=False)

    @property
    def gain(self) -> float:
        """What the vector adds over the zero vector, in nats per token."""
        return (self.log_prob - self.zero_log_prob) / self.tokens

    @property
    def likelihood(self) -> float:
        """How likely the vector makes the label, in nats per token: 0 at most."""
        return self.log_prob / self.tokens


def check_settings(scales: Sequence[float], samples: int, sampling: Sampling) -> None:
    """Raise ConfigError for a setting that makes no sense."""
    problems = [
        (not scales, "scales is empty; give at least one number"),
        (not all(math.isfinite(s) for s in scales), f"scales {list(scales)}: finite numbers only"),
        (samples < 1, f"samples is {samples}; at least 1 is expected"),
        (
            not 0 <= sampling.temperature < math.inf,
            f"temperature is {sampling.temperature}; 0 (greedy) or more is expected",
        ),
        (not 0 < sampling.top_p <= 1, f"top_p is {sampling.top_p}; a number in (0, 1] is expected"),
        (
            not 0 < sampling.repetition_penalty < math.inf,
            f"repetition_penalty is {sampling.repetition_penalty}; a number above 0 is expected "
            "(1 changes nothing)",
        ),
        (
            sampling.max_new_tokens < 1,
            f"max_new_tokens is {sampling.max_new_tokens}; at least 1 is expected",
        ),
    ]
    for wrong, message in problems:
        if wrong:
            raise ConfigError(message + ".")
