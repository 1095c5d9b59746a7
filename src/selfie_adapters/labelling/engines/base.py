"""What an engine does: it generates labels and scores them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor

from selfie_adapters.config.shared import Sampling
from selfie_adapters.inference.generate import Generated


class Engine(Protocol):
    """Generates and scores answers to one prompt; each depends on its own row and seed alone."""

    def generate(
        self, soft_tokens: Tensor, seeds: Sequence[int], sampling: Sampling
    ) -> list[Generated]:
        """One answer per soft token and seed. soft_tokens: [rows, d_model]."""
        ...

    def prefill(self, soft_tokens: Tensor) -> Any:
        """The prompt read with each of soft_tokens [n, d_model], for `score`."""
        ...

    def score(
        self, read: Any, answers: Sequence[Sequence[int]], owners: Tensor | None = None
    ) -> list[float]:
        """log p(answers[i] | soft token owners[i] of those in `read`) in nats, one per answer.

        owners: [answers]; None: all belong to the first soft token.
        """
        ...

    def close(self) -> None:
        """Release what the engine holds besides the model; it is not used afterwards."""
        ...
