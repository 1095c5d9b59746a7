"""Labels of latents: the words they fire on most that their decoder rows write too.

A label is up to three words, such as "king, queen, throne". Each of them is among the words of the
latent's strongest tokens, and its mean state is among those nearest to the decoder row: a label
that the row does not hold could not be read from it. Plain counting and cosines, no model.
"""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

import torch
from torch import Tensor

from selfie_adapters.sources.topics.wordnet import packaged_nouns

WORDS = 3
CONTEXTS = 40  # strongest tokens of a latent that are looked at
LEAST_CONTEXTS = 10
LEAST_SHARE = 0.4  # of them, on words that say something
LEAST_REPEATS = 3  # of them, on the label's first word; on another word one less
LEAST_COVERED = 0.25  # of them, on the label's words
LARGEST_DENSITY = 0.02  # a latent on more of all tokens is no topic
COMMON = 100  # most frequent words of the corpus, which mean nothing here
LEAST_OCCURRENCES = 4  # of a word whose mean state is known
NEAREST = 20  # words that a row writes, of all those whose mean state is known
SPELLING = 3  # letters at the beginning or end that make two words look alike
STEM, STEM_SHARE = 4, 0.6  # letters, and share of the longer word, that two forms begin with
_WORD = re.compile(r"[A-Za-z][A-Za-z'’-]*")
_ENDINGS = ("'s", "’s", "ies", "ing", "es", "ed", "er", "ly", "s")


@dataclass(frozen=True)
class TokenSpan:
    """Position of a token: text number, and its characters there."""

    text: int
    start: int
    stop: int


def common_words(texts: Sequence[str]) -> set[str]:
    counts = Counter(word.lower() for text in texts for word in _WORD.findall(text))
    return {word for word, _ in counts.most_common(COMMON)}


def words_at(places: Sequence[TokenSpan], texts: Sequence[str]) -> list[str]:
    """Of each token the word that it ends, in small letters; "" inside a word and between words.

    A word's first piece says how it begins; its last token is where the model knows the word.
    places: text by text, in the order of their characters.
    """
    found: list[str] = []
    words: Iterator[re.Match[str]] = iter(())
    word, text = None, -1
    for place in places:
        if place.text != text:
            text = place.text
            words = _WORD.finditer(texts[text])
            word = next(words, None)
        while word is not None and word.end() <= place.start:
            word = next(words, None)
        ends = word is not None and word.start() < place.stop and word.end() <= place.stop
        found.append(word[0].lower() if word is not None and ends else "")
    return found


def family(word: str) -> str:
    """What a word's forms have in common: that of "owl" and "owls", "take" and "taking"."""
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word.removesuffix(ending) + ("y" if ending == "ies" else "")
            break
    word = word.rstrip("e") or word
    word = re.sub(r"([^aeiou])\1$", r"\1", word)  # running, stopped
    return word[:-1] + "i" if word.endswith("y") else word


def same_stem(one: str, other: str) -> bool:
    """Whether one word is most likely derived from the other, as "electrical" from "electric"."""
    shared = sum(
        1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    )
    return shared >= STEM and shared >= STEM_SHARE * max(len(one), len(other))


def look_alike(one: str, other: str) -> bool:
    """Whether two words share their spelling and, as far as WordNet knows, nothing else."""
    stems = family(one), family(other)
    if stems[0][:SPELLING] != stems[1][:SPELLING] and stems[0][-SPELLING:] != stems[1][-SPELLING:]:
        return False
    nouns = packaged_nouns()
    senses, others = nouns.senses(one), nouns.senses(other)
    return not (senses & others or nouns.related(senses) & others)


def word_states(states: Tensor, words: Sequence[str]) -> tuple[list[str], Tensor]:
    """Words that occur often enough, and the mean state at the token that ends each, minus the mean
    of all states, at unit length: [words, d_model]. states: [tokens, d_model]."""
    counts = Counter(word for word in words if len(word) > 2)
    known = sorted(word for word, count in counts.items() if count >= LEAST_OCCURRENCES)
    number = {word: i for i, word in enumerate(known)}
    owners = torch.tensor([number.get(word, len(known)) for word in words])
    sums = torch.zeros(len(known) + 1, states.shape[1])
    for own, part in zip(owners.split(8192), states.split(8192), strict=True):
        sums.index_add_(0, own, part.float())
    means = sums[:-1] / torch.tensor([counts[word] for word in known]).unsqueeze(1)
    means -= sums.sum(dim=0) / len(states)
    return known, means / means.norm(dim=1, keepdim=True)


def label_of(fired: Sequence[str], written: Sequence[str], common: set[str]) -> str | None:
    """The words that occur most among the strongest tokens and that the row writes.

    fired: the words of the strongest tokens, strongest first, "" where there is none. written: the
    words nearest to the decoder row. Of words that only look alike the label has the first, so that
    a latent of many words that begin alike keeps none. None if most of the tokens are of other
    words (frequent ones, short ones, marks, first pieces), if no word comes back, and if the words
    are too little of what it fires on.
    """
    words = [word for word in fired if len(word) > 2 and word not in common]
    if len(words) < LEAST_SHARE * len(fired):
        return None
    forms: dict[str, Counter[str]] = {}
    for word, count in Counter(words).most_common():
        name = family(word)
        name = next((one for one in forms if name == one or same_stem(name, one)), name)
        forms.setdefault(name, Counter())[word] += count
    wrote = {family(word) for word in written}
    fits = [of for of in forms.values() if any(family(word) in wrote for word in of)]
    kept: dict[str, int] = {}  # word in the form that fires most → tokens with any form
    for of in sorted(fits, key=Counter.total, reverse=True):
        word, count = of.most_common(1)[0][0], of.total()
        least = LEAST_REPEATS - 1 if kept else LEAST_REPEATS
        if count >= least and len(kept) < WORDS and not any(look_alike(word, o) for o in kept):
            kept[word] = count
    if sum(kept.values()) < max(1, LEAST_COVERED * len(fired)):
        return None
    return ", ".join(kept)


def labels_of(
    strongest: Sequence[Sequence[int]],
    density: Tensor,
    rows: Tensor,
    states: Tensor,
    words: Sequence[str],
    common: set[str],
    nearest: int = NEAREST,
) -> dict[int, str]:
    """latent → label, for those that can be labelled.

    strongest: of each latent the tokens that it fires on most, strongest first. density [latents]:
    share of all tokens that it fires on. rows [latents, d_model]: of the decoder. states [tokens,
    d_model], words: of every token (`words_at`). nearest: words that a row writes.
    """
    known, means = word_states(states, words)
    found: dict[int, str] = {}
    wrote = (rows @ means.T).topk(min(nearest, len(known)), dim=1).indices.tolist()
    for latent, tokens in enumerate(strongest):
        if density[latent] > LARGEST_DENSITY or len(tokens) < LEAST_CONTEXTS:
            continue
        written = [known[i] for i in wrote[latent]]
        label = label_of([words[token] for token in tokens[:CONTEXTS]], written, common)
        if label:
            found[latent] = label
    return found


def split_of_labels(
    labels: Mapping[int, str], shares: Mapping[str, float], seed: int
) -> dict[int, str]:
    """latent → split: labels that share a word in any form are in one split.

    shares: of the labels, by split; a group goes to the split that lacks most of its share.
    """
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            name = parent[name]
        return name

    for label in labels.values():
        first, *others = (root(family(word)) for word in label.split(", "))
        for other in others:
            parent[root(other)] = root(first)
    groups: dict[str, list[int]] = defaultdict(list)
    for latent, label in sorted(labels.items()):
        groups[root(family(label.split(", ")[0]))].append(latent)
    order = sorted(groups)
    random.Random(seed).shuffle(order)
    order.sort(key=lambda name: len(groups[name]), reverse=True)  # a stable sort
    splits: dict[int, str] = {}
    filled: Counter[str] = Counter()
    for name in order:
        split = max(shares, key=lambda one: shares[one] - filled[one] / len(labels))
        filled[split] += len(groups[name])
        splits.update(dict.fromkeys(groups[name], split))
    return splits
