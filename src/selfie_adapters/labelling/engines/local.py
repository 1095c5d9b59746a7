"""The default engine: the frozen model in this process."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from selfie_adapters.config.labelling import LabelSettings
from selfie_adapters.config.shared import Sampling
from selfie_adapters.inference.generate import Generated, generate_labels, quote_tokens
from selfie_adapters.inference.label_scores import Prefilled, prefill, score_generated
from selfie_adapters.model import BoundPrompt, FrozenModel, SharedPrefix
from selfie_adapters.model.prefix import shareable

LOADS_MODEL = False


def make_engine(model: FrozenModel, prompt: BoundPrompt, _settings: LabelSettings) -> LocalEngine:
    return LocalEngine(model, prompt)


class LocalEngine:
    """Implements `labelling.engines.base.Engine`."""

    def __init__(self, model: FrozenModel, prompt: BoundPrompt) -> None:
        self._model, self._prompt = model, shareable(model, prompt)
        self._prefix = SharedPrefix(model, self._prompt.prefix_ids)
        self._quotes = quote_tokens(model)

    def generate(
        self, soft_tokens: Tensor, seeds: Sequence[int], sampling: Sampling
    ) -> list[Generated]:
        return generate_labels(
            self._model, self._prompt, self._prefix, soft_tokens, seeds, sampling, self._quotes
        )

    def prefill(self, soft_tokens: Tensor) -> Prefilled:
        return prefill(self._model, self._prompt, self._prefix, soft_tokens)

    def score(
        self, read: Prefilled, answers: Sequence[Sequence[int]], owners: Tensor | None = None
    ) -> list[float]:
        return score_generated(self._model, read, answers, owners)

    def close(self) -> None:
        """Nothing: the model is the caller's."""
