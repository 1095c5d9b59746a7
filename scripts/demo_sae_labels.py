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
LEAST_SHARE = 0.5  # of the activation, on words that say something
LARGEST_DENSITY = 0.02  # a latent on more of all tokens is no topic
COMMON = 120  # most frequent words of the texts, which say nothing
_WORD = re.compile(r"[A-Za-z][A-Za-z'’-]*")


@dataclass(frozen=True)
class Place:
    """Where a token stands: text number, and its characters there."""

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


def label_of(words: Sequence[str], activations: Sequence[float], common: set[str]) -> str | None:
    """The words with the largest sums of activation; None if most of it is on others."""
    weight: Counter[str] = Counter()
    for word, activation in zip(words, activations, strict=True):
        if len(word) > 2 and word not in common:
            weight[word] += activation
    if weight.total() < LEAST_SHARE * sum(activations):
        return None
    best = weight.most_common(WORDS)
    return ", ".join(word for word, sum_ in best if sum_ >= best[0][1] / 6)


def labels_of(activations: Tensor, places: Sequence[Place], texts: Sequence[str]) -> dict[int, str]:
    """latent → label, for those that can be labelled. activations: [tokens, latents]."""
    common = common_words(texts)
    density = (activations > 0).float().mean(dim=0)
    strongest = activations.topk(min(CONTEXTS, len(activations)), dim=0)
    found: dict[int, str] = {}
    for latent in torch.nonzero(density <= LARGEST_DENSITY).flatten().tolist():
        values = strongest.values[:, latent].tolist()
        tokens = strongest.indices[:, latent].tolist()
        pairs = [(places[i], value) for i, value in zip(tokens, values, strict=True) if value > 0]
        if len(pairs) < LEAST_CONTEXTS:
            continue
        words = [word_at(texts[place.text], place) for place, _ in pairs]
        label = label_of(words, [value for _, value in pairs], common)
        if label:
            found[latent] = label
    return found
