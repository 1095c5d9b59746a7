"""What the bridge protocol reads with: the adapter, random directions, and no adapter at all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from selfie_adapters.adapters import Adapter
from selfie_adapters.config.evaluation.bridge import BridgeSettings
from selfie_adapters.evaluation.bridge.results import TRAINED
from selfie_adapters.evaluation.controls import untrained_adapter
from selfie_adapters.labelling import Labeller
from selfie_adapters.model import FrozenModel, SoftPrompt
from selfie_adapters.model.fingerprint import mean_embedding_norm
from selfie_adapters.model.prompt import ANSWER, QUESTION
from selfie_adapters.model.user_text import as_chat

RANDOM, UNTRAINED = "random directions", "untrained × {:g}"


@dataclass(frozen=True)
class BridgeCondition:
    """Labels of a question's states by one labeller, or of random directions in their place."""

    name: str
    meaning: str
    labeller: Labeller
    scale: float = 1.0
    random: bool = False


def bridge_conditions(
    settings: BridgeSettings, model: FrozenModel, adapter: Adapter | None
) -> Iterator[BridgeCondition]:
    """The first is the one under evaluation: the adapter's, or without one the first scale's."""
    prompt = None
    if settings.prompt == "chat_template" and (adapter is None or adapter.binding is None):
        prompt = _whole_chat(model)
    if adapter is not None:
        labeller = Labeller(model, adapter, prompt)
        prompt = labeller.prompt.prompt
        yield BridgeCondition(TRAINED, f"adapter {settings.adapter}", labeller)
        if settings.random:
            meaning = "Gaussian directions with the states' norms"
            yield BridgeCondition(RANDOM, meaning, labeller, random=True)
    absolute = settings.untrained_scale_unit == "absolute"
    norm = 1.0 if absolute else mean_embedding_norm(model)
    bare = Labeller(model, untrained_adapter(model.d_model, norm), prompt)
    unit = "" if absolute else " mean embedding norms"
    for scale in settings.untrained_scales:
        meaning = f"unit vector × {scale:g}{unit}, no adapter"
        yield BridgeCondition(UNTRAINED.format(scale), meaning, bare, scale)


def _whole_chat(model: FrozenModel) -> SoftPrompt:
    """The usual question in the tokenizer's chat template, with whatever system text it brings."""
    usual = SoftPrompt.for_tokenizer(model.tokenizer)
    question = as_chat(model.tokenizer, QUESTION.format(usual.placeholder), "template")
    return SoftPrompt(question + ANSWER.format(usual.placeholder), usual.placeholder, usual.end)
