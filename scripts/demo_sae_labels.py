"""Labels of latents from the words they fire on most: plain counting, no model.

A label is up to three words, such as "king, crown, throne". It says where the latent was seen to
fire most strongly and no more: what else it means, or what it does, is not known.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

WORDS = 3
CONTEXTS = 40  # strongest tokens of a latent that are looked at
LEAST_CONTEXTS = 12
LEAST_SHARE = 0.5  # of them, on words that say something
LEAST_REPEATS = 3  # of them, on the label's first word; on another word one less
LARGEST_DENSITY = 0.02  # a latent on more of all tokens is no topic
COMMON = 120  # most frequent words of the corpus, which mean nothing here
_WORD = re.compile(r"[A-Za-z][A-Za-z'’-]*")


@dataclass(frozen=True)
class Place:
    """Position of a token: text number, and its characters there."""

    text: int
    start: int
    stop: int


def common_words(texts: Sequence[str]) -> set[str]:
    counts = Counter(word.lower() for text in texts for word in _WORD.findall(text))
    return {word for word, _ in counts.most_common(COMMON)}


def word_at(text: str, place: Place) -> str:
    """The word that the token is a part of, in small letters; "" if it is of none."""
    for found in _WORD.finditer(text, max(0, place.start - 40), place.stop + 40):
        if found.start() < place.stop and place.start < found.end():
            return found[0].lower()
    return ""


def label_of(words: Sequence[str], common: set[str]) -> str | None:
    """The words that occur most among the strongest tokens, strongest first.

    None if most of the tokens are of other words (frequent ones, short ones, marks), or no word
    comes back: a latent for the first piece of many words, say.
    """
    counts = Counter(word for word in words if len(word) > 2 and word not in common)
    best = counts.most_common(WORDS)
    if counts.total() < LEAST_SHARE * len(words) or best[0][1] < LEAST_REPEATS:
        return None
    return ", ".join(word for word, count in best if count >= LEAST_REPEATS - 1)


def labels_of(activations: Tensor, places: Sequence[Place], texts: Sequence[str]) -> dict[int, str]:
    """latent → label, for those that can be labelled. activations: [tokens, latents]."""
    common = common_words(texts)
    density = (activations > 0).float().mean(dim=0)
    strongest = activations.topk(min(CONTEXTS, len(activations)), dim=0)
    found: dict[int, str] = {}
    for latent in torch.nonzero(density <= LARGEST_DENSITY).flatten().tolist():
        values = strongest.values[:, latent].tolist()
        tokens = strongest.indices[:, latent].tolist()
        fired = [places[i] for i, value in zip(tokens, values, strict=True) if value > 0]
        if len(fired) < LEAST_CONTEXTS:
            continue
        label = label_of([word_at(texts[place.text], place) for place in fired], common)
        if label:
            found[latent] = label
    return found
