"""Negatives: conversations that are about none of the labels, one fixed set for all conditions.

A chat model writes them once per evaluation, one about each of some nouns of the packaged concept
list, and each is measured at every evaluated latent. A condition's labels have no influence on
them, so that conditions differ in their own conversations alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from selfie_adapters.errors import DataError
from selfie_adapters.evaluation.folder import EvaluationFolder, EvaluationRow
from selfie_adapters.evaluation.scoring.conversations import ChatTokens, write_conversations
from selfie_adapters.evaluation.scoring.generation import (
    Scoring,
    check_writer,
    measured,
    usable_tokens,
)
from selfie_adapters.evaluation.scoring.maximum_activations import check_width, maximum_activations
from selfie_adapters.progress import StepProgress, silent
from selfie_adapters.sources.sae.encoder import LatentEncoder
from selfie_adapters.sources.topics.reading import packaged_topics
from selfie_adapters.words import words_of

_AT_ONCE = 64  # conversations between two writes; after a kill at most that many are repeated
_NUMBERS_AT_ONCE = 2**26  # of the SAE's weights, which each conversation of a batch gets a copy of


def choose_nouns(labels: Iterable[str], count: int, seed: int) -> list[str]:
    """`count` nouns of the packaged concepts, sampled; fewer nouns are the first of more.

    No word of a noun or of its synonyms occurs in `labels`. Raises DataError if there are fewer.
    """
    used = {word for label in labels for word in words_of(label)}
    found: list[str] = []
    for topic in packaged_topics():
        # A label that begins with the name and a comma is its gloss, which is no name.
        names = [one for one in topic.labels if not one.startswith(f"{topic.title}, ")]
        if used.isdisjoint(word for name in (topic.title, *names) for word in words_of(name)):
            found.append(topic.title)
    if len(found) < count:
        raise DataError(
            f"negatives: {count} nouns that share no word with a label are needed; the concept "
            f"list has {len(found)}. Set negatives to {len(found)} at most, or evaluate fewer "
            "latents."
        )
    order = np.random.default_rng(seed).permutation(len(found))[:count]
    return [found[i] for i in order.tolist()]


def write_negatives(
    scoring: Scoring,
    nouns: Sequence[str],
    folder: EvaluationFolder,
    progress: StepProgress = silent,
) -> None:
    """Write a conversation about each noun and measure it at every latent of the encoder.

    Rows go to `folder` under "negative:0", "negative:1", …; rows that are there are kept. Raises
    as `score_labels` does.
    """
    writer, encoder = scoring.writer, scoring.encoder
    if writer is None or encoder is None:
        raise ValueError("negatives require a writer and an encoder")
    check_width(scoring.model, encoder)
    keys = [_key(number) for number in range(len(nouns))]
    for key, noun in zip(keys, nouns, strict=True):
        _check_row(folder, key, noun, len(encoder.latents))
    how = replace(scoring.writing, conversations=1)
    for start in range(0, len(nouns), _AT_ONCE):
        progress("negatives", start, len(nouns))
        some = slice(start, start + _AT_ONCE)
        if all(key in folder.rows for key in keys[some]):
            continue
        written = write_conversations(writer, [[noun] for noun in nouns[some]], how, scoring.seed)
        conversations: list[dict[str, Any]] = [{"text": text} for ((text,),) in written]
        _measure(scoring, encoder, conversations)
        check_writer(writer, conversations)
        for key, noun, one in zip(keys[some], nouns[some], conversations, strict=True):
            if key not in folder.rows:
                folder.add(key, {"noun": noun, "conversation": one})
    progress("negatives", len(nouns), len(nouns))


def negative_conversations(folder: EvaluationFolder, count: int) -> list[EvaluationRow]:
    """The `count` conversations that `write_negatives` put into `folder`."""
    return [folder.rows[_key(number)]["conversation"] for number in range(count)]


def _key(number: int) -> str:
    return f"negative:{number}"


def _check_row(folder: EvaluationFolder, key: str, noun: str, latents: int) -> None:
    """Raise DataError if the row under `key` is there and is not what would be written."""
    if (row := folder.rows.get(key)) is None:
        return
    if row.get("noun") != noun:
        raise folder.damaged(key, f"is about {row.get('noun')!r}, not {noun!r}")
    conversation = row["conversation"]
    if "error" not in conversation and len(conversation["content"]) != latents:
        raise folder.damaged(key, f"does not have {latents} activations")


def _measure(
    scoring: Scoring, encoder: LatentEncoder, conversations: Sequence[dict[str, Any]]
) -> None:
    """Put into each conversation its maximum activations at all latents, or its error."""
    usable: list[tuple[dict[str, Any], ChatTokens]] = []
    for conversation in conversations:
        tokens = usable_tokens(scoring.model, conversation["text"])
        if isinstance(tokens, str):
            conversation["error"] = tokens
        else:
            usable.append((conversation, tokens))
    latents = torch.tensor(encoder.latents, dtype=torch.int64)
    at_once = max(1, _NUMBERS_AT_ONCE // (len(latents) * encoder.d_in))
    maxima = maximum_activations(
        scoring.model,
        encoder,
        [tokens for _, tokens in usable],
        latents.expand(len(usable), -1),
        min(scoring.batch_size, at_once),
    )
    found = zip(usable, maxima.anywhere.tolist(), maxima.content.tolist(), strict=True)
    for (conversation, tokens), anywhere, content in found:
        conversation |= measured(tokens, anywhere, content)
