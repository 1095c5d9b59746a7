"""The direction of a style: what the chat form of a prompt adds to the states of its concept.

Training files do not record which of their vectors are from a chat turn and which from plain text,
so both are captured: the same concepts in the same sentences, as a chat turn and as plain text, at
the block and kind of position of the file's vectors. The difference of the two means is the style;
concept and sentence cancel.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from selfie_adapters.adapters.base import unit_norm
from selfie_adapters.config.prepare import QUESTION
from selfie_adapters.dataset.captured import NAME, Captured
from selfie_adapters.errors import DataError
from selfie_adapters.model import FrozenModel
from selfie_adapters.model.user_text import Chat, UserText
from selfie_adapters.sources.topics.frames import in_sentence, read_frames, token_at, token_ends
from selfie_adapters.sources.topics.reading import topic_texts, topic_vectors
from selfie_adapters.sources.topics.topic import Topic

CONCEPTS = 32
"""Concepts that are captured in both forms, at most."""
SENTENCES = 8
"""Sentences of each; at a position counted from the end, one question."""


def chat_form(model: FrozenModel, captured: Captured) -> Chat | None:
    """The chat format that is compared with plain text: that of the vectors' prompts, else the
    tokenizer's template. None where there is neither."""
    if captured.chat not in (None, "none"):
        return captured.chat
    return "template" if model.tokenizer.chat_template else None


def style_direction(
    model: FrozenModel, topics: Sequence[Topic], layer: int, kind: str, captured: Captured
) -> Tensor:
    """The unit vector [d_model] from plain text to the chat form of the same prompts.

    Raises DataError where both give the same states, or there is no chat form.
    """
    chat, some = chat_form(model, captured), topics[:CONCEPTS]
    if chat is not None:
        means = [_mean(model, some, layer, kind, captured, form) for form in (chat, "none")]
        difference = means[0] - means[1]
        if difference.norm() > 0:
            return unit_norm(difference)
    raise DataError(
        f"{model.name}: chat turns and plain text give the same states at block {layer}, position "
        f"{kind}. Choose a later block with --layer."
    )


def _mean(
    model: FrozenModel,
    topics: Sequence[Topic],
    layer: int,
    kind: str,
    captured: Captured,
    form: Chat,
) -> Tensor:
    """Mean state [d_model] of topics in prompts of one form, float64."""
    if kind != NAME:
        texts = topic_texts(model, topics, captured.question or QUESTION, form)
        return topic_vectors(model, texts, [layer], int(kind))[:, 0].double().mean(dim=0)
    turns = UserText(model.tokenizer, form)
    means = []
    for frame in read_frames().train[:SENTENCES]:
        sentences = [in_sentence(turns, frame, topic.title) for topic in topics]
        ends = [token_at(token_ends(model.tokenizer, one.text), one.name[1]) for one in sentences]
        states = topic_vectors(model, [one.text for one in sentences], [layer], ends)
        means.append(states[:, 0].double().mean(dim=0))
    return torch.stack(means).mean(dim=0)
