"""One label of one vector, and which settings can make labels."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real

from torch import Tensor

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


def check_settings(
    scales: Sequence[float], samples: int, sampling: Sampling, batch_size: int | None = None
) -> None:
    """Raise ConfigError for a setting of another type, and for one that makes no sense."""
    if isinstance(scales, str) or not isinstance(scales, Collection) or not all(map(_real, scales)):
        raise ConfigError(f"scales is {scales!r:.60}; numbers are expected, such as (0.5, 1, 2).")
    for name in ("temperature", "top_p", "repetition_penalty"):
        if not _real(value := getattr(sampling, name)):
            raise ConfigError(f"{name} is {value!r:.60}; a number is expected.")
    whole = {"samples": samples, "max_new_tokens": sampling.max_new_tokens}
    for name, value in (whole | {"batch_size": 1 if batch_size is None else batch_size}).items():
        if not isinstance(value, Integral):
            raise ConfigError(f"{name} is {value!r:.60}; a whole number is expected.")
    problems = [
        (not len(scales), "scales is empty; give at least one number"),
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
        (
            batch_size is not None and batch_size < 1,
            f"batch_size is {batch_size}; at least 1 is expected",
        ),
    ]
    for wrong, message in problems:
        if wrong:
            raise ConfigError(message + ".")


def _real(value: object) -> bool:
    return isinstance(value, Real) or (isinstance(value, Tensor) and value.numel() == 1)
