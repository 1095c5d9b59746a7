"""Do conversations about a label activate the latent that the label describes?

label → short conversations by a chat model → chat template → the latent's activations at the SAE's
layer. Each conversation is also measured at other latents (`foils`), for which it was not written:
they are the latent's negatives, and its control with the labels of another latent, for free.
`results` computes scores from these measurements.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import msgspec
import numpy as np
import torch

from selfie_adapters.chat import ChatModel
from selfie_adapters.errors import LabellingError, PromptError
from selfie_adapters.evaluation.folder import EvaluationFolder, Row
from selfie_adapters.evaluation.scoring.conversations import (
    ChatTokens,
    Writing,
    chat_tokens,
    parse_conversation,
    write_conversations,
)
from selfie_adapters.evaluation.scoring.label_groups import LabelGroups
from selfie_adapters.evaluation.scoring.maximum_activations import check_width, maximum_activations
from selfie_adapters.model import FrozenModel
from selfie_adapters.sources.sae.encoder import LatentEncoder

NO_TEXT = "the writer wrote nothing"


@dataclass(frozen=True)
class Foils:
    """For each evaluated latent the others that its conversations are measured at as well.

    The latents form a ring in random order; the `count` after a latent are its foils. So each
    latent is a foil of as many others, and `before(place, k)` states of which.
    """

    order: tuple[int, ...]
    count: int

    @classmethod
    def drawn(cls, latents: int, count: int, seed: int) -> Foils:
        order = np.random.default_rng(seed).permutation(latents)
        return cls(tuple(order.tolist()), min(count, latents - 1))

    def after(self, place: int) -> list[int]:
        """Places of the foils of the latent at `place`."""
        at = self.order.index(place)
        return [self.order[(at + k) % len(self.order)] for k in range(1, self.count + 1)]

    def before(self, place: int, k: int) -> int:
        """The index of the latent whose k-th foil (from 1) is the latent at `place`."""
        return self.order[(self.order.index(place) - k) % len(self.order)]


@dataclass(frozen=True)
class Scoring:
    """What one evaluation measures with, whatever the labels."""

    model: FrozenModel
    encoder: LatentEncoder | None
    """None where labels are only written; `latents` names them then."""
    writer: ChatModel | None
    """None writes labels only."""
    writing: Writing
    foils: Foils
    seed: int = 0
    batch_size: int = 32
    latents_at_once: int = 8
    """Latents whose labels and conversations are generated together; after a kill at most that many
    are repeated."""
    token_activations: bool = False
    """Keep each latent's activation at every token of its conversations, not only the largest."""
    latents: tuple[int, ...] = ()

    @property
    def evaluated(self) -> tuple[int, ...]:
        """The latents under evaluation: the encoder's, where there is one."""
        return self.latents if self.encoder is None else self.encoder.latents


class ConversationRow(msgspec.Struct):
    """A conversation written from a label: an error, or its maximum activations at
    the latent and the foils."""

    text: str
    error: str | None = None
    tokens: int | None = None
    content_tokens: int | None = None
    anywhere: list[float] | None = None
    content: list[float] | None = None
    activations: list[float] | None = None

    def __post_init__(self) -> None:
        if self.error is None and (self.anywhere is None or self.content is None):
            raise ValueError("a conversation without an error lacks its activations")


class LabelledRow(msgspec.Struct):
    """A label of a latent; without conversations where labels alone are made."""

    text: str
    scale: float | None
    conversations: list[ConversationRow] | None = None


class ScoringRow(msgspec.Struct):
    """One latent under one condition."""

    latent: int
    labels: list[LabelledRow]


def score_labels(
    scoring: Scoring,
    sources: Mapping[str, LabelGroups],
    folder: EvaluationFolder,
    progress: Callable[[str, int, int], None] = lambda _condition, _done, _all: None,
) -> None:
    """Measure every condition at every latent of the encoder; rows go to `folder`.

    Rows that are there are kept. Raises DataError for an SAE of another width, LabellingError if
    the writer writes nothing at all.
    """
    if scoring.encoder is not None:
        check_width(scoring.model, scoring.encoder)
    latents = scoring.evaluated
    for condition, source in sources.items():
        for start in range(0, len(latents), scoring.latents_at_once):
            places = range(start, min(start + scoring.latents_at_once, len(latents)))
            keys = [f"{condition}:{latents[place]}" for place in places]
            for key, place in zip(keys, places, strict=True):
                _check_row(folder, key, latents[place], scoring)
            if any(key not in folder.rows for key in keys):
                rows = _measure(scoring, source, places)
                for key, row in zip(keys, rows, strict=True):
                    if key not in folder.rows:
                        folder.add(key, row)
            progress(condition, places.stop, len(latents))


def _check_row(folder: EvaluationFolder, key: str, latent: int, scoring: Scoring) -> None:
    """Raise DataError if the row under `key` is there and is not what would be measured."""
    if (row := folder.rows.get(key)) is None:
        return
    if row["latent"] != latent:
        raise folder.damaged(key, f"is of latent {row['latent']}")
    if scoring.writer is None:
        return
    for label in row["labels"]:
        conversations = label.get("conversations")
        expected = scoring.writing.conversations if label["text"] else 0
        if conversations is None or len(conversations) != expected:
            raise folder.damaged(key, f"does not have {expected} conversations for a label")
        sound = [one for one in conversations if "error" not in one]
        maxima = [one[where] for one in sound for where in ("anywhere", "content")]
        if any(len(of) != 1 + scoring.foils.count for of in maxima):
            raise folder.damaged(key, f"does not have {1 + scoring.foils.count} activations each")


def _measure(scoring: Scoring, source: LabelGroups, places: Sequence[int]) -> list[Row]:
    latents = scoring.evaluated
    groups = source.groups(places)
    rows: list[Row] = [
        {"latent": latents[place], "labels": [asdict(group) for group in of_latent]}
        for place, of_latent in zip(places, groups, strict=True)
    ]
    if scoring.writer is None or scoring.encoder is None:
        return rows
    labels = [[group.text for group in of_latent] for of_latent in groups]
    written = write_conversations(scoring.writer, labels, scoring.writing, scoring.seed)
    usable: list[tuple[int, dict[str, Any], ChatTokens]] = []
    for place, row, of_latent in zip(places, rows, written, strict=True):
        for label, texts in zip(row["labels"], of_latent, strict=True):
            label["conversations"] = [{"text": text} for text in texts]
            for conversation in label["conversations"]:
                tokens = _tokens(scoring.model, conversation["text"])
                if isinstance(tokens, str):
                    conversation["error"] = tokens
                else:
                    usable.append((place, conversation, tokens))
    _check_writer(scoring.writer, rows, len(usable))
    _add_activations(scoring, scoring.encoder, usable)
    return rows


def _check_writer(writer: ChatModel, rows: Sequence[Row], usable: int) -> None:
    reasons = [
        conversation["error"]
        for row in rows
        for label in row["labels"]
        for conversation in label["conversations"]
        if "error" in conversation
    ]
    if reasons and not usable:
        raise LabellingError(
            f"the writer {writer.name} wrote none of {len(reasons)} conversations in a form that "
            f"can be used (the first: {reasons[0]}). Check the writer."
        )


def _add_activations(
    scoring: Scoring,
    encoder: LatentEncoder,
    usable: Sequence[tuple[int, dict[str, Any], ChatTokens]],
) -> None:
    """Put into each conversation its maximum activations at the latent it was written for,
    then at the foils."""
    latents, foils = encoder.latents, scoring.foils
    wanted = [
        [latents[place], *(latents[foil] for foil in foils.after(place))] for place, _, _ in usable
    ]
    maxima = maximum_activations(
        scoring.model,
        encoder,
        [tokens for _, _, tokens in usable],
        torch.tensor(wanted, dtype=torch.int64).reshape(len(usable), 1 + foils.count),
        scoring.batch_size,
    )
    found = zip(usable, maxima.anywhere.tolist(), maxima.content.tolist(), maxima.own, strict=True)
    for (_, conversation, tokens), anywhere, content, own in found:
        conversation["tokens"] = len(tokens.ids)
        conversation["content_tokens"] = sum(tokens.content)
        conversation["anywhere"] = anywhere
        conversation["content"] = content
        if scoring.token_activations:
            conversation["activations"] = [float(f"{value:.6g}") for value in own]


def _tokens(model: FrozenModel, text: str) -> ChatTokens | str:
    """The conversation's tokens, or what is wrong with it."""
    messages = parse_conversation(text)
    if not text or not messages:
        return NO_TEXT
    try:
        return chat_tokens(model.tokenizer, messages)
    except PromptError as error:
        return str(error)
