"""Do conversations about a label activate the latent that the label describes?

label → short conversations by a chat model → chat template → the latent's activations at the SAE's
layer. Each conversation is also measured at one other latent: the control with the labels of
another latent, for free. The negatives, one set for all conditions, are in `negatives`. `results`
computes scores from these measurements.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import msgspec
import torch

from selfie_adapters.chat import ChatModel
from selfie_adapters.dataset.controls import shuffle_order
from selfie_adapters.errors import LabellingError, PromptError
from selfie_adapters.evaluation.folder import EvaluationFolder, EvaluationRow
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
from selfie_adapters.progress import StepProgress, silent
from selfie_adapters.sources.sae.encoder import LatentEncoder

NO_TEXT = "the writer wrote nothing"


def others_of(latents: int, seed: int) -> tuple[int, ...]:
    """For each of the evaluated latents (0 to n − 1) the other one that its conversations are
    measured at as well: each latent is the other of one latent. () for a single latent."""
    return tuple(shuffle_order(latents, seed).tolist()) if latents > 1 else ()


@dataclass(frozen=True)
class Scoring:
    """What one evaluation measures with, whatever the labels."""

    model: FrozenModel
    encoder: LatentEncoder | None
    """None where labels are only written; `latents` names them then."""
    writer: ChatModel | None
    """None writes labels only."""
    writing: Writing
    others: tuple[int, ...] = ()
    """As `others_of` gives them; () measures each conversation at its own latent alone."""
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
    """A conversation: an error, or its maximum activations. One written from a label has those at
    its latent, then at the other one; a negative has those at every evaluated latent."""

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
    """One latent under one condition, or one negative: a conversation about a noun."""

    latent: int | None = None
    labels: list[LabelledRow] | None = None
    noun: str | None = None
    conversation: ConversationRow | None = None

    def __post_init__(self) -> None:
        measured = self.latent is not None and self.labels is not None
        negative = self.noun is not None and self.conversation is not None
        if measured == negative:
            raise ValueError("latent with labels is expected, or noun with conversation")


def score_labels(
    scoring: Scoring,
    sources: Mapping[str, LabelGroups],
    folder: EvaluationFolder,
    progress: StepProgress = silent,
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
    if row.get("latent") != latent:
        raise folder.damaged(key, f"is of latent {row.get('latent')}")
    if scoring.writer is None:
        return
    for label in row["labels"]:
        conversations = label.get("conversations")
        expected = scoring.writing.conversations if label["text"] else 0
        if conversations is None or len(conversations) != expected:
            raise folder.damaged(key, f"does not have {expected} conversations for a label")
        sound = [one for one in conversations if "error" not in one]
        maxima = [one[where] for one in sound for where in ("anywhere", "content")]
        count = 1 + bool(scoring.others)
        if any(len(of) != count for of in maxima):
            raise folder.damaged(key, f"does not have {count} activations each")


def _measure(scoring: Scoring, source: LabelGroups, places: Sequence[int]) -> list[EvaluationRow]:
    latents = scoring.evaluated
    groups = source.groups(places)
    rows: list[EvaluationRow] = [
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
                tokens = usable_tokens(scoring.model, conversation["text"])
                if isinstance(tokens, str):
                    conversation["error"] = tokens
                else:
                    usable.append((place, conversation, tokens))
    every = [
        conversation
        for row in rows
        for label in row["labels"]
        for conversation in label["conversations"]
    ]
    check_writer(scoring.writer, every)
    _add_activations(scoring, scoring.encoder, usable)
    return rows


def check_writer(writer: ChatModel, conversations: Sequence[Mapping[str, Any]]) -> None:
    """Raise LabellingError if all of the conversations have an error."""
    reasons = [one["error"] for one in conversations if "error" in one]
    if reasons and len(reasons) == len(conversations):
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
    then at the other one."""
    latents, others = encoder.latents, scoring.others
    wanted = [
        [latents[place], *(latents[other] for other in others[place : place + 1])]
        for place, _, _ in usable
    ]
    maxima = maximum_activations(
        scoring.model,
        encoder,
        [tokens for _, _, tokens in usable],
        torch.tensor(wanted, dtype=torch.int64).reshape(len(usable), 1 + bool(others)),
        scoring.batch_size,
    )
    found = zip(usable, maxima.anywhere.tolist(), maxima.content.tolist(), maxima.own, strict=True)
    for (_, conversation, tokens), anywhere, content, own in found:
        conversation |= measured(tokens, anywhere, content)
        if scoring.token_activations:
            conversation["activations"] = [float(f"{value:.6g}") for value in own]


def measured(tokens: ChatTokens, anywhere: list[float], content: list[float]) -> dict[str, Any]:
    """What a `ConversationRow` holds about a conversation without an error."""
    return {
        "tokens": len(tokens.ids),
        "content_tokens": sum(tokens.content),
        "anywhere": anywhere,
        "content": content,
    }


def usable_tokens(model: FrozenModel, text: str) -> ChatTokens | str:
    """The conversation's tokens, or what is wrong with it."""
    messages = parse_conversation(text)
    if not text or not messages:
        return NO_TEXT
    try:
        return chat_tokens(model.tokenizer, messages)
    except PromptError as error:
        return str(error)
