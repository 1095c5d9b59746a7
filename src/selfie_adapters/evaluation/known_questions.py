"""Which two-hop questions a model can answer: it must say the bridge and the answer when asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from selfie_adapters.chat import ChatModel, ChatRequest, Message
from selfie_adapters.evaluation.entities import names_entity
from selfie_adapters.sources.twohop import Entity, TwoHopQuestion

_TASK = "Complete the sentence with a name and nothing else: {}"
# The one shot; of no data set's relations, so that it gives nothing away.
_SHOT = ("The novel about a white whale that Herman Melville wrote is", "Moby-Dick")
_ANSWER_TOKENS = 16


@dataclass(frozen=True)
class Asked:
    """What the model said when it was asked for the bridge and for the answer."""

    question: TwoHopQuestion
    bridge_said: str
    answer_said: str

    @property
    def knows_bridge(self) -> bool:
        return _names(self.bridge_said, self.question.bridge)

    @property
    def knows_answer(self) -> bool:
        return _names(self.answer_said, self.question.answer)


def ask(
    chat: ChatModel,
    questions: Sequence[TwoHopQuestion],
    progress: Callable[[int], None] = lambda _answers: None,
) -> list[Asked]:
    """Both questions about each, one-shot at temperature 0. Raises what `chat` raises."""
    requests = [request(q.bridge_prompt) for q in questions]
    requests += [request(q.prompt) for q in questions]
    said = chat.answer(requests, lambda _number, _text: progress(1))
    half = len(questions)
    return [Asked(q, said[i], said[half + i]) for i, q in enumerate(questions)]


def request(sentence: str) -> ChatRequest:
    """The sentence to be completed, after one that is complete."""
    begun, name = _SHOT
    turns = (
        Message("user", _TASK.format(begun)),
        Message("assistant", name),
        Message("user", _TASK.format(sentence)),
    )
    return ChatRequest(turns, _ANSWER_TOKENS)


def _names(said: str, entity: Entity) -> bool:
    return names_entity(said, entity.aliases)
