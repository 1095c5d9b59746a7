"""Which two-hop questions a model can answer: it must say the bridge and the answer when asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from selfie_adapters.chat import ChatModel, ChatRequest, Message
from selfie_adapters.evaluation.bridge.entities import names_entity, unnamed
from selfie_adapters.sources.twohop import Entity, TwoHopQuestion

_TASK = "Complete the sentence: {}"
# The one shot; of no data set's relations, so that it gives nothing away.
_SHOT = ("The novel about a white whale that Herman Melville wrote is", "Moby-Dick.")
_ANSWER_TOKENS = 32  # room for servers that repeat the sentence before they complete it


@dataclass(frozen=True)
class Asked:
    """What the model said when it was asked for the bridge and for the answer."""

    question: TwoHopQuestion
    bridge_said: str
    answer_said: str

    @property
    def knows_bridge(self) -> bool:
        return _says(self.bridge_said, self.question.bridge, self.question.bridge_prompt)

    @property
    def knows_answer(self) -> bool:
        return _says(self.answer_said, self.question.answer, self.question.prompt)


def ask(
    chat: ChatModel,
    questions: Sequence[TwoHopQuestion],
    progress: Callable[[], object] = lambda: None,
) -> list[Asked]:
    """Both questions about each, one-shot at temperature 0; `progress` is called at each answer.

    Raises what `chat` raises.
    """
    requests = [request(q.bridge_prompt) for q in questions]
    requests += [request(q.prompt) for q in questions]

    def answered(_number: int, _text: str) -> None:
        progress()

    said = chat.answer(requests, answered)
    half = len(questions)
    return [Asked(q, said[i], said[half + i]) for i, q in enumerate(questions)]


def request(sentence: str) -> ChatRequest:
    """The sentence to be completed, after one that is complete; the answer begins with it."""
    first, name = _SHOT
    turns = (
        Message("user", _TASK.format(first)),
        Message("assistant", f"{first} {name}"),
        Message("user", _TASK.format(sentence)),
    )
    return ChatRequest(turns, _ANSWER_TOKENS, begun=sentence)


def _says(said: str, entity: Entity, prompt: str) -> bool:
    """Whether the entity is named by an alias that the sentence does not hold itself."""
    # The first look is quick, and mostly the last.
    return names_entity(said, entity.aliases) and names_entity(
        said, unnamed(prompt, entity.aliases)
    )
