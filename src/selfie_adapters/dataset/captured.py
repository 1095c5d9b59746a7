"""How vectors were captured: the chat format and question of their prompts, and the token taken.

Stated by a training file's metadata, by the file of its means, and by the binding of an adapter
trained on it; None wherever it is not stated.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

from selfie_adapters.adapters import Binding
from selfie_adapters.config.types import Chat
from selfie_adapters.dataset.load import Section
from selfie_adapters.files import existing_file
from selfie_adapters.tensor_files.safetensors_file import safetensors_metadata

_CHATS = get_args(Chat)


@dataclass(frozen=True)
class Captured:
    """chat: chat format of the prompts. question: what a topic's name was put into. position: the
    token whose state was taken, from the end when negative, or "name". no_concept: the label of
    vectors that hold none."""

    chat: Chat | None = None
    question: str | None = None
    position: int | Literal["name"] | None = None
    no_concept: str | None = None

    @classmethod
    def by_sections(cls, sections: Sequence[Section]) -> Captured:
        """What sections of a training file state alike; those of vectors without a concept, which
        are from several positions, decide only where there are no others."""
        stated = [section.metadata for section in sections]
        concepts = [one for one in stated if one.get("vector_type") != "null"]
        return cls._common(concepts or stated)

    @classmethod
    def by_mean_file(cls, path: str | Path) -> Captured:
        """What the metadata of a mean-vectors file states. Raises MissingFileError, DataError."""
        file = existing_file(path)
        if file.suffix.lower() != ".safetensors":  # other files have no metadata
            return cls()
        stated: dict[str, Any] = {**safetensors_metadata(file)}
        # Metadata of safetensors files are strings; no token has a number of more digits.
        position = str(stated.get("position", ""))
        number = position.removeprefix("-")
        known = number.isascii() and number.isdigit() and len(number) < 10
        return cls._common([{**stated, "position": int(position) if known else position}])

    @classmethod
    def by_binding(cls, binding: Binding | None) -> Captured:
        """What an adapter states about the vectors that it was trained on."""
        if binding is None:
            return cls()
        return cls(binding.chat, binding.question, binding.position, binding.no_concept)

    @classmethod
    def _common(cls, stated: Sequence[Mapping[str, Any]]) -> Captured:
        def alike(key: str) -> Any:
            first = stated[0].get(key) if stated else None
            return first if all(one.get(key) == first for one in stated) else None

        chat, question, position = alike("chat"), alike("question"), alike("position")
        no_concept = alike("no_concept")
        return cls(
            cast("Any", chat) if chat in _CHATS else None,
            question if isinstance(question, str) else None,
            position if type(position) is int or position == "name" else None,
            no_concept if isinstance(no_concept, str) else None,
        )

    def differences(self, other: Captured) -> list[str]:
        """Where both state something and not the same: "chat format 'bare', not 'none'"."""
        pairs = (
            ("chat format", self.chat, other.chat),
            ("question", self.question, other.question),
            ("position", self.position, other.position),
        )
        return [
            f"{name} {mine!r}, not {theirs!r}"
            for name, mine, theirs in pairs
            if mine is not None and theirs is not None and mine != theirs
        ]


NAME = "name"


def kind_of_token(position: int, tokens: int, known: Collection[str | None]) -> str | None:
    """Which of the kinds `known` a token of a prompt belongs to.

    position: from 0, of `tokens`. A kind counted from the end, else from the start, where that one
    is known; else "name" (a token inside the text); else the one without a kind, or the only one
    there is.
    Raises KeyError if none of these is known.
    """
    for kind in (str(position - tokens), str(position), NAME, None):
        if kind in known:
            return kind
    if len(known) == 1:
        return next(iter(known))
    raise KeyError(position)


def stated_kind(metadata: dict[str, Any]) -> str | None:
    """The kind of position that a section of a training file states, if it states one."""
    position = metadata.get("position")
    known = type(position) is int or position == NAME
    return str(position) if known else None
