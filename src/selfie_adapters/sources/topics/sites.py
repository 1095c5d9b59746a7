"""Which states a training file of topics holds: prompts, and the token of each that is taken."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from selfie_adapters.dataset.schema import Split
from selfie_adapters.errors import DataError, nearest
from selfie_adapters.model import FrozenModel
from selfie_adapters.model.user_text import Chat, UserText
from selfie_adapters.sources.topics.frames import (
    Framer,
    Frames,
    Sentence,
    read_frames,
    token_at,
    token_ends,
)
from selfie_adapters.sources.topics.null_tokens import EMPTY_PROMPTS, draw_null_tokens
from selfie_adapters.sources.topics.reading import topic_texts
from selfie_adapters.sources.topics.topic import Topic

QUESTION = "Tell me about {}."
NO_CONCEPT = "nothing"
NULL_SHARE = 0.15
Position = int | Literal["name"]
_RANGE = re.compile(r"(-?\d{1,6})(?::(-?\d{1,6}))?")


@dataclass(frozen=True)
class TopicSettings:
    """Which states are a topic's vectors: outputs of blocks `layers` at each of `positions`.

    positions: tokens of the chat-formatted question, from the end when negative; "name": the last
    token of the topic's name in `frames_per_topic` sentences of `frames`. names_only: training
    vectors are labelled with their topic's name alone, so that labels come out short; held-out ones
    keep all labels, by which they are judged. no_concept: how many
    vectors without a concept are added, as a share of the topics' vectors (None: `NULL_SHARE` with
    the position "name", else none); their one label is `no_concept_label`. val_fraction and seed
    choose what is held out, where topics do not state it.
    """

    layers: tuple[int, ...]
    question: str = QUESTION
    chat: Chat = "template"
    positions: tuple[Position, ...] = (-1,)
    frames: Frames = field(default_factory=read_frames)
    frames_per_topic: int = 2
    names_only: bool = False
    no_concept: float | None = None
    no_concept_label: str = NO_CONCEPT
    val_fraction: float = 0.1
    seed: int = 42

    @property
    def null_share(self) -> float:
        """Vectors without a concept, as a share of the topics' vectors."""
        if self.no_concept is None:
            return NULL_SHARE if "name" in self.positions else 0.0
        return self.no_concept

    def check(self) -> None:
        """Raise DataError for positions or layers that occur twice, and for nulls without names."""
        for what, values in (("layers", self.layers), ("positions", self.positions)):
            if not values or len(set(values)) != len(values):
                raise DataError(f"{what} {list(values)}: give each once, and at least one.")
        if not 0 <= self.null_share <= 1:
            raise DataError(
                f"no_concept is {self.no_concept}; a share from 0 to 1 of the topics' vectors is "
                "expected."
            )
        if self.frames_per_topic < 1:
            raise DataError(f"frames_per_topic is {self.frames_per_topic}; give 1 or more.")
        if self.null_share and "name" not in self.positions:
            raise DataError(
                "tokens without a concept are taken from the sentences around names: give "
                'positions "name" too (--positions -1,name), or no_concept 0.'
            )


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


def read_positions(text: str) -> tuple[Position, ...]:
    """Positions as a user writes them: "-1", "0,5", "-4:0" (to the end), "-1,name".

    Raises DataError for anything else.
    """
    found: list[Position] = []
    for part in (part.strip() for part in text.split(",")):
        if part == "name":
            found.append("name")
        elif match := _RANGE.fullmatch(part):
            start = int(match[1])
            stop = start + 1 if match[2] is None else int(match[2])
            if start < 0 < stop or stop <= start:
                raise DataError(
                    f'positions: "{part}" holds no token; write a range that rises and does not '
                    "pass from the end to the beginning, such as -4:0 or 2:5."
                )
            found += range(start, stop)
        else:
            raise DataError(
                f'positions: "{part}" is neither a number, a range, nor "name". '
                f"{nearest(part, ['name'])}".rstrip()
            )
    return tuple(found)


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
        texts = topic_texts(model, topics, settings.question, settings.chat)
        for number, (text, split) in enumerate(zip(texts, splits, strict=True)):
            sites.add(text, kind, number, split)
        return sites
    framer = Framer(model.tokenizer, settings.chat, settings.frames, settings.seed)
    for number, (topic, split) in enumerate(zip(topics, splits, strict=True)):
        if topic.name is None:
            raise DataError(
                f'topic {number} ("{topic.title}") has a prompt and no name to put into sentences. '
                'Give it one, or leave "name" out of the positions.'
            )
        for sentence in framer.draw(topic.name, split != "train", settings.frames_per_topic):
            position = token_at(token_ends(model.tokenizer, sentence.text), sentence.name[1])
            sites.add(sentence.text, position, number, split)
    return sites


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
    framer = Framer(model.tokenizer, settings.chat, settings.frames, settings.seed + 1)
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
    turns = UserText(model.tokenizer, settings.chat)
    for number, prompt in enumerate(EMPTY_PROMPTS):
        held_out = sorted(set(counts) - {"train"})
        split: Split = (
            "train" if number % 4 or not held_out else held_out[number // 4 % len(held_out)]
        )
        last.add(turns.text(prompt), -1, -1, split)
    return [tokens, last]
