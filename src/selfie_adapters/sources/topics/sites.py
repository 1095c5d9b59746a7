"""Which states a training file of topics holds: prompts, and the token of each that is taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from selfie_adapters.chat.request import read_messages
from selfie_adapters.config.prepare import NO_CONCEPT, Position, TopicSettings
from selfie_adapters.dataset.schema import Split
from selfie_adapters.errors import DataError
from selfie_adapters.model import FrozenModel
from selfie_adapters.sources.topics.frames import (
    Framer,
    Sentence,
    read_frames,
    token_at,
    token_ends,
)
from selfie_adapters.sources.topics.null_tokens import EMPTY_PROMPTS, draw_null_tokens
from selfie_adapters.sources.topics.reading import topic_texts
from selfie_adapters.sources.topics.topic import Topic


@dataclass
class Sites:
    """States to take: prompts as the model sees them, the token of each, what it belongs to.

    topics: the number of each state's topic, -1 for a state without one.
    """

    kind: Position
    texts: list[str] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    topics: list[int] = field(default_factory=list)
    splits: list[Split] = field(default_factory=list)

    def add(self, text: str, position: int, topic: int, split: Split) -> None:
        self.texts.append(text)
        self.positions.append(position)
        self.topics.append(topic)
        self.splits.append(split)

    def __len__(self) -> int:
        return len(self.texts)


def topic_sites(
    model: FrozenModel,
    topics: Sequence[Topic],
    splits: Sequence[Split],
    settings: TopicSettings,
    kind: Position,
) -> Sites:
    """The states of one position kind, in the topics' order.

    Raises DataError for a question without a place, PromptError without the chat format, and
    DataError for a topic without a name that is to be put into sentences.
    """
    sites = Sites(kind)
    if kind != "name":
        texts = _texts(model, topics, settings)
        for number, (text, split) in enumerate(zip(texts, splits, strict=True)):
            sites.add(text, kind, number, split)
        return sites
    framer = Framer(model.tokenizer, settings.chat, read_frames(settings.frames), settings.seed)
    for number, (topic, split) in enumerate(zip(topics, splits, strict=True)):
        if topic.name is None:
            raise DataError(
                f'topic {number} ("{topic.title}") has a prompt and no name to put into sentences. '
                'Give it one, or remove "name" from the positions.'
            )
        for sentence in framer.draw(topic.name, split != "train", settings.frames_per_topic):
            position = token_at(token_ends(model.tokenizer, sentence.text), sentence.name[1])
            sites.add(sentence.text, position, number, split)
    return sites


def _texts(model: FrozenModel, topics: Sequence[Topic], settings: TopicSettings) -> list[str]:
    messages = None if settings.messages is None else read_messages(settings.messages)
    return topic_texts(model, topics, settings.question, settings.chat, messages)


def null_sites(
    model: FrozenModel,
    topics: Sequence[Topic],
    splits: Sequence[Split],
    settings: TopicSettings,
    counts: dict[Split, int],
) -> list[Sites]:
    """States without a concept: of tokens around names, and of the last token of empty prompts.

    counts: how many of each split, at most. The last are there where position -1 is.
    """
    tokens = Sites("name")
    framer = Framer(model.tokenizer, settings.chat, read_frames(settings.frames), settings.seed + 1)
    for split, count in counts.items():
        sentences: list[Sentence] = []
        for topic, own in zip(topics, splits, strict=True):
            if own == split and topic.name is not None:
                sentences += framer.draw(topic.name, split != "train", 1)
        for text, position in draw_null_tokens(model.tokenizer, sentences, count, settings.seed):
            tokens.add(text, position, -1, split)
    if -1 not in settings.positions:
        return [tokens]
    last = Sites(-1)
    empty = [Topic((NO_CONCEPT,), prompt=prompt) for prompt in EMPTY_PROMPTS]
    for number, text in enumerate(_texts(model, empty, settings)):
        held_out = sorted(set(counts) - {"train"})
        split: Split = (
            "train" if number % 4 or not held_out else held_out[number // 4 % len(held_out)]
        )
        last.add(text, -1, -1, split)
    return [tokens, last]
