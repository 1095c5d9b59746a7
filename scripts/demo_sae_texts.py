"""What the demo SAE is trained on: concepts with their glosses, books, and speeches."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfie_adapters.model import FrozenModel
from selfie_adapters.sources.topics.reading import more_topics, packaged_topics

WINDOW = 128  # tokens of raw text
TURN = 220  # characters of a text in one turn
_ASKS = ("What is {}?", "Tell me about {}.", "What does {} mean?", "And {}?")


@dataclass(frozen=True)
class Text:
    """A text as tokens; tokens before `first` are read but not learned from.

    plain: its contents without the turns of a chat.
    """

    text: str
    ids: list[int]
    offsets: list[tuple[int, int]]
    first: int
    plain: str


def tokenized(
    model: FrozenModel, text: str, first: int, longest: int = 400, plain: str | None = None
) -> Text:
    encoded: Any = model.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids, offsets = encoded["input_ids"][:longest], encoded["offset_mapping"][:longest]
    return Text(text, ids, offsets, first, text if plain is None else plain)


def as_chat(model: FrozenModel, contents: Sequence[str]) -> Text:
    """Turns of user and assistant; the template's system turn is not learned from."""
    roles = ("user", "assistant")
    turns = [{"role": roles[i % 2], "content": content} for i, content in enumerate(contents)]
    text = str(model.tokenizer.apply_chat_template(turns, tokenize=False))
    before = model.tokenizer(text[: text.index(contents[0])], add_special_tokens=False)["input_ids"]
    return tokenized(model, text, len(before), plain=" ".join(contents))


def concept_chats(model: FrozenModel, rng: random.Random) -> Iterator[Text]:
    """Questions about four concepts, answered with their glosses."""
    glosses: list[tuple[str, str]] = []
    for topic in [*packaged_topics(), *more_topics()]:
        gloss = next((one for one in topic.labels if one.startswith(f"{topic.title}, ")), None)
        if gloss:
            glosses.append((topic.title, gloss.split(", ", 1)[1]))
    rng.shuffle(glosses)
    for start in range(0, len(glosses), 4):
        turns: list[str] = []
        for name, gloss in glosses[start : start + 4]:
            answer = f"{gloss[0].upper()}{gloss[1:]}."
            turns += [rng.choice(_ASKS).format(name), f"{name.capitalize()}: {answer}"]
        yield as_chat(model, turns)


def pieces(model: FrozenModel, files: Sequence[Path], rng: random.Random) -> Iterator[Text]:
    """Pieces of the files in random order, every other one as a chat of two turns."""
    found: list[str] = []
    for file in files:
        text = re.sub(r"\s+", " ", file.read_text(encoding="utf-8", errors="replace"))
        size = 4 * WINDOW
        found += [text[i : i + size] for i in range(0, len(text) - size, size)]
    rng.shuffle(found)
    for number, piece in enumerate(found):
        if number % 2:
            yield as_chat(
                model, [piece[:TURN].strip() or "…", piece[TURN : 2 * TURN].strip() or "…"]
            )
        else:
            yield tokenized(model, piece.strip(), 1, WINDOW)


class Sources:
    """Passages in random order, each once: half concepts, a third books, a sixth speeches."""

    def __init__(self, model: FrozenModel, folder: Path, seed: int) -> None:
        self._rng = rng = random.Random(seed)
        files = sorted(folder.rglob("*.txt"))
        speeches = [file for file in files if "sotu" in str(file)]
        books = [file for file in files if file not in speeches]
        if not books or not speeches:
            raise SystemExit(f"{folder}: .txt files of both packages are expected; see --help")
        self._shares = (
            (concept_chats(model, rng), 1 / 2),
            (pieces(model, books, rng), 1 / 3),
            (pieces(model, speeches, rng), 1 / 6),
        )

    def take(self, tokens: int) -> list[Text]:
        """The next passages, with about `tokens` tokens to learn from."""
        texts: list[Text] = []
        for source, share in self._shares:
            left = share * tokens
            for text in source:
                if left <= 0:
                    break
                texts.append(text)
                left -= len(text.ids) - text.first
        self._rng.shuffle(texts)
        return texts
