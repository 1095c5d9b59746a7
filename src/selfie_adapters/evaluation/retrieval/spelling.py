"""The spelling control of retrieval: how far do the first letters of a title alone lead?

A label may be spelled from the vector and not understood: "owner" for *owl*. Two numbers show it.
*First letters* is an oracle that knows the first n letters of the topic's title and nothing else;
it picks at random among the topics that begin with them. And every condition is ranked once more
among the topics that begin with the same two letters as its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from selfie_adapters.words import plain

if TYPE_CHECKING:
    from selfie_adapters.evaluation.retrieval.lookup import Query

LETTERS = 2
"""Letters that distractors share with the topic."""
ORACLES = (1, 2, 3, 4)
"""Letters that the oracles know."""
_ARTICLES = ("a ", "an ", "the ")


def first_letters(title: str, count: int) -> str:
    """The first letters and digits of a title, without case, a leading article and other signs."""
    text = plain(title)
    for article in _ARTICLES:
        text = text.removeprefix(article) if text != article.strip() else text
    return "".join(character for character in text if character.isalnum())[:count]


def same_start(titles: Sequence[str], count: int = LETTERS) -> np.ndarray:
    """A number for each title, [titles]: equal where the first `count` letters are."""
    _, numbers = np.unique([first_letters(one, count) for one in titles], return_inverse=True)
    return numbers


class FirstLetters:
    """The oracle as a condition: chances in place of hits, since it picks at random.

    As `lookup.Scored`: condition, meaning, queries, found_at, reciprocal, ranks.
    """

    def __init__(self, titles: Sequence[str], queries: Sequence[Query], letters: int) -> None:
        """titles: of all topics. queries: what is looked up; their labels are not read."""
        self.condition = f"oracle: first {letters} letter{'s' if letters > 1 else ''}"
        self.meaning = "picks at random among the topics whose titles begin as the topic's does"
        self.queries = queries
        groups = same_start(titles, letters)
        self._sizes = np.bincount(groups)[groups[[query.topic for query in queries]]]

    def found_at(self, k: int) -> np.ndarray:
        """[queries], the chance that the topic is among the first k of its group."""
        return np.minimum(1.0, k / self._sizes)

    def reciprocal(self) -> np.ndarray:
        """[queries], the mean of one over the rank, over all orders of the group."""
        harmonic = np.cumsum(1.0 / np.arange(1, self._sizes.max() + 1))
        return harmonic[self._sizes - 1] / self._sizes

    def ranks(self) -> np.ndarray:
        """[queries], the mean rank over all orders of the group."""
        return (self._sizes + 1) / 2
