"""Which questions the bridge protocol reads: chosen by id, or those the model itself answers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from itertools import count

import torch

from selfie_adapters.chat import AnswerCache, ChatModel, open_chat
from selfie_adapters.config.evaluation.bridge import BridgeSettings
from selfie_adapters.errors import ConfigError, nearest
from selfie_adapters.evaluation.bridge.known_questions import ask
from selfie_adapters.evaluation.folder import EvaluationFolder
from selfie_adapters.evaluation.spoken_labels import Progress
from selfie_adapters.inference.sampling import row_seed
from selfie_adapters.model import FrozenModel
from selfie_adapters.sources.twohop import TwoHopQuestion

_ASKED_AT_ONCE = 256


def chosen_questions(
    settings: BridgeSettings, questions: list[TwoHopQuestion]
) -> list[TwoHopQuestion]:
    """All questions, or the one that is named."""
    wanted = settings.question_id
    found = [one for one in questions if wanted in (None, one.uid)]
    if not found:
        hint = nearest(str(wanted), [one.uid for one in questions])
        raise ConfigError(f"question_id {wanted}: not in {settings.questions}. {hint}")
    return found


def known_questions(
    settings: BridgeSettings,
    questions: list[TwoHopQuestion],
    kept: EvaluationFolder,
    model: FrozenModel,
    chat: ChatModel | None,
    progress: Progress,
) -> tuple[list[TwoHopQuestion], dict[str, int]]:
    """The questions to be read, in random order, and how many fell away; answers stay on disk."""
    generator = torch.Generator().manual_seed(row_seed(settings.seed, "questions"))
    order = torch.randperm(len(questions), generator=generator).tolist()
    limit = settings.limit or len(questions)
    if not settings.only_answered:
        return [questions[i] for i in order[:limit]], {"questions": len(questions)}
    answers = kept.folder / "answers"
    cache = (
        AnswerCache(chat, answers)
        if chat is not None
        else open_chat(settings.answerer, answers, model, settings.device)
    )
    kept.also_depends_on("chat_weights", cache.weights)
    known: list[TwoHopQuestion] = []
    bridges = answers = done = 0
    answered = count(1)

    def one_more() -> None:
        progress("asking", next(answered), 2 * len(order))

    for start in range(0, len(order), _ASKED_AT_ONCE):
        if len(known) >= limit:
            break
        part = [questions[i] for i in order[start : start + _ASKED_AT_ONCE]]
        for one in ask(cache, part, one_more):
            bridges += one.knows_bridge
            answers += one.knows_answer
            if one.knows_bridge and one.knows_answer:
                known.append(one.question)
        done += len(part)
    counts = {"questions": len(questions), "asked": done, "bridge answered": bridges}
    return known[:limit], {**counts, "question answered": answers, "both answered": len(known)}


def questions_digest(questions: Sequence[TwoHopQuestion]) -> str:
    text = json.dumps([asdict(question) for question in questions], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
