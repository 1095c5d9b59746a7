"""Sentences that a topic's name is put into, and the position of its last token."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.resources import files as package_files
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from selfie_adapters.config.types import Chat
from selfie_adapters.errors import DataError
from selfie_adapters.files import existing_file
from selfie_adapters.files.text_lines import read_lines
from selfie_adapters.model.tokens import begun_ids, encode
from selfie_adapters.model.user_text import UserText

_HELD_OUT_EVERY = 5  # this sentence of each five is kept for held-out topics


@dataclass(frozen=True)
class Frames:
    """Sentences with "{}" for a name: those of training topics, and those of held-out ones.

    Held-out topics are in sentences without a training topic, so that what is measured on
    them holds for new sentences as well.
    """

    train: tuple[str, ...]
    held_out: tuple[str, ...]

    @classmethod
    def of(cls, sentences: Sequence[str]) -> Frames:
        """Every fifth sentence for held-out topics; of fewer than five the last one, if there are
        two."""
        held_out = tuple(sentences[_HELD_OUT_EVERY - 1 :: _HELD_OUT_EVERY]) or tuple(sentences[-1:])
        train = tuple(one for one in sentences if one not in held_out)
        return cls(train or held_out, held_out)


@dataclass(frozen=True)
class Sentence:
    """A topic's name in a sentence, as the model sees it.

    text: chat format included. user: span of the user's part of it, in characters. name: span of
    the name.
    """

    text: str
    user: tuple[int, int]
    name: tuple[int, int]


def read_frames(path: str | Path | None = None) -> Frames:
    """Sentences of a file, one per line, each with one "{}"; None: the 60 of the package.

    Raises DataError naming file and line.
    """
    if path is None:
        text = (package_files("selfie_adapters.sources.topics") / "frames.txt").read_text("utf-8")
        return Frames.of(text.splitlines())
    file = existing_file(path)
    sentences = [(number, line.strip()) for number, line in read_lines(file)]
    for number, sentence in sentences:
        if sentence.count("{}") != 1:
            raise DataError(
                f"{file}, line {number}: {sentence.count('{}')} places for the name in "
                f'{sentence!r:.60}; one "{{}}" is expected.'
            )
    if not sentences:
        raise DataError(
            f"{file}: no sentences. Write some, one per line: I saw the {{}} yesterday."
        )
    return Frames.of([sentence for _, sentence in sentences])


class Framer:
    """Puts names into sentences: one half as a chat turn, the other as plain text.

    So an adapter trained on the states reads both. chat "none" leaves all of them plain. Raises
    PromptError where the tokenizer has no such chat format.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, chat: Chat, frames: Frames, seed: int
    ) -> None:
        self._turns = [UserText(tokenizer, one) for one in dict.fromkeys((chat, "none"))]
        self._frames = frames
        self._random = random.Random(seed)

    def draw(self, name: str, held_out: bool, count: int) -> list[Sentence]:
        """The name in `count` different sentences, or in all there are, drawn at random."""
        frames = self._frames.held_out if held_out else self._frames.train
        return [
            in_sentence(self._random.choice(self._turns), frame, name)
            for frame in self._random.sample(frames, min(count, len(frames)))
        ]

    def fixed(self, count: int) -> list[Callable[[str], Sentence]]:
        """`count` sentences of training topics, drawn once, each as a function of the name.

        Every second one is plain text. Fewer where there are fewer sentences.
        """
        chosen = self._random.sample(self._frames.train, min(count, len(self._frames.train)))
        return [
            partial(in_sentence, self._turns[number % len(self._turns)], frame)
            for number, frame in enumerate(chosen)
        ]


def in_sentence(turns: UserText, frame: str, name: str) -> Sentence:
    """The name in a sentence, which is a chat turn or plain as `turns` makes it."""
    begin = frame.index("{}")
    user = frame.replace("{}", name)
    text = turns.text(user)
    start = text.index(user)
    at = start + begin
    return Sentence(text, (start, start + len(user)), (at, at + len(name)))


def token_ends(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Where in `text` each of its tokens ends, in characters; begin tokens that are added end at 0.

    [tokens of `begun_ids`]
    """
    own = encode(tokenizer, text)
    added = len(begun_ids(tokenizer, [text])[0]) - len(own)
    if tokenizer.is_fast:
        offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ends = [end for _, end in offsets["offset_mapping"]]
    else:  # what the first tokens say, in characters
        said = (tokenizer.decode(own[: i + 1]) for i in range(len(own)))
        ends = [min(len(one), len(text)) for one in said]
    return [0] * added + ends


def token_at(ends: Sequence[int], end: int) -> int:
    """The token that holds the character before `end`: the first one to reach it."""
    return next(i for i, one in enumerate(ends) if one >= end)
