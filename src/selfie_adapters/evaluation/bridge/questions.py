"""Which questions the bridge protocol reads: one by its id, or those the model itself answers.

A model answers a two-hop question if it names the bridge and the answer when asked for each.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import count

import torch

from selfie_adapters.chat import ChatModel, ChatRequest, Message
from selfie_adapters.config.evaluation.bridge import BridgeSettings
from selfie_adapters.errors import ConfigError, nearest
from selfie_adapters.evaluation.bridge.entities import names_entity, unnamed
from selfie_adapters.inference.generate import row_seed
from selfie_adapters.progress import StepProgress
from selfie_adapters.sources.twohop import Entity, TwoHopQuestion, read_twohop

_ASKED_AT_ONCE = 256
_TASK = "Complete the sentence: {}"
# The one shot; of no data set's relations, so that it gives nothing away.
_SHOT = ("The novel about a white whale that Herman Melville wrote is", "Moby-Dick.")
_ANSWER_TOKENS = 32  # room for servers that repeat the sentence before they complete it


@dataclass(frozen=True)
class Asked:
    """What the model answered when it was asked for the bridge and for the answer."""

    question: TwoHopQuestion
    bridge_answer: str
    final_answer: str

    @property
    def knows_bridge(self) -> bool:
        return _names(self.bridge_answer, self.question.bridge, self.question.bridge_prompt)

    @property
    def knows_answer(self) -> bool:
        return _names(self.final_answer, self.question.answer, self.question.prompt)


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

    answers = chat.answer(requests, answered)
    half = len(questions)
    return [Asked(q, answers[i], answers[half + i]) for i, q in enumerate(questions)]


def request(sentence: str) -> ChatRequest:
    """The sentence to be completed, after one that is complete; the answer begins with it."""
    first, name = _SHOT
    turns = (
        Message("user", _TASK.format(first)),
        Message("assistant", f"{first} {name}"),
        Message("user", _TASK.format(sentence)),
    )
    return ChatRequest(turns, _ANSWER_TOKENS, begun=sentence)


def _names(answer: str, entity: Entity, prompt: str) -> bool:
    """Whether the entity is named by an alias that the sentence does not hold itself."""
    # The first look is quick, and mostly the last.
    return names_entity(answer, entity.aliases) and names_entity(
        answer, unnamed(prompt, entity.aliases)
    )


def chosen_questions(settings: BridgeSettings) -> list[TwoHopQuestion]:
    """All questions, or the one that is named. Raises ConfigError where it is not there."""
    questions = read_twohop(settings.questions)
    wanted = settings.question_id
    found = [one for one in questions if wanted in (None, one.uid)]
    if not found:
        hint = nearest(str(wanted), [one.uid for one in questions])
        raise ConfigError(f"question_id {wanted}: not in {settings.questions}. {hint}")
    return found


def known_questions(
    settings: BridgeSettings,
    questions: list[TwoHopQuestion],
    answerer: Callable[[], ChatModel],
    progress: StepProgress,
) -> tuple[list[TwoHopQuestion], dict[str, int]]:
    """The questions to be read, in random order, and how many were dropped.

    answerer: opens the chat model that is asked, where the settings keep only what it answers.
    """
    generator = torch.Generator().manual_seed(row_seed(settings.seed, "questions"))
    order = torch.randperm(len(questions), generator=generator).tolist()
    limit = settings.limit or len(questions)
    if not settings.only_answered:
        return [questions[i] for i in order[:limit]], {"questions": len(questions)}
    chat = answerer()
    known: list[TwoHopQuestion] = []
    bridges = answers = done = 0
    answered = count(1)

    def one_more() -> None:
        progress("asking", next(answered), 2 * len(order))

    for start in range(0, len(order), _ASKED_AT_ONCE):
        if len(known) >= limit:
            break
        part = [questions[i] for i in order[start : start + _ASKED_AT_ONCE]]
        for one in ask(chat, part, one_more):
            bridges += one.knows_bridge
            answers += one.knows_answer
            if one.knows_bridge and one.knows_answer:
                known.append(one.question)
        done += len(part)
    counts = {"questions": len(questions), "asked": done, "bridge answered": bridges}
    return known[:limit], {**counts, "question answered": answers, "both answered": len(known)}


def questions_digest(questions: Sequence[TwoHopQuestion]) -> str:
    """SHA-256 of the questions."""
    text = json.dumps([asdict(question) for question in questions], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
