"""The spelling control: names and labels of something else that begin with the same letters.

A label may be spelled from the vector and not understood: "owner" for *owl*. A method that spells
finds, or fires on, what begins alike about as well as what the vector is about.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from functools import cache
from itertools import islice

from selfie_adapters.evaluation.retrieval.spelling import LETTERS, first_letters
from selfie_adapters.sources.topics.reading import packaged_topics
from selfie_adapters.words import words_of

SAME_START = "same start"
_ALL = 40  # letters that are compared
_ARTICLES = {"a", "an", "the"}


class StartIndex:
    """Names by their first letters, those of a pool; the package's concepts where it has none."""

    def __init__(self, pool: Iterable[str]) -> None:
        self._pool = _by_start(pool)

    def of(self, text: str, count: int, about: Iterable[str] = ()) -> list[str]:
        """Up to `count` names that begin with the same letters as `text`, at least `LETTERS` of
        them; those that share most letters first.

        None of them is about the same thing: they have no word in common with `text` or `about`,
        and the first word of neither begins with that of the other ("speaker" for "speak"). Those
        of the pool; where it has none, names of the packaged concepts. Empty where there are none
        either.
        """
        own, first = first_letters(text, _ALL), _first_word(text)
        words = {word for one in (text, *about) for word in words_of(one)}
        for texts in (self._pool, _concepts()):
            found = sorted(
                (-_letters_in_common(own, letters), letters, other)
                for other, letters, word in texts.get(own[:LETTERS], ())
                if not (first.startswith(word) or word.startswith(first))
            )
            apart = (other for _, _, other in found if words.isdisjoint(words_of(other)))
            if chosen := list(islice(apart, count)):
                return chosen
        return []


def _letters_in_common(one: str, other: str) -> int:
    """At the beginning of both."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))


def _by_start(texts: Iterable[str]) -> dict[str, list[tuple[str, str, str]]]:
    """First letters → the names that begin so, each once, with all its letters and first word."""
    found: defaultdict[str, list[tuple[str, str, str]]] = defaultdict(list)
    for text in dict.fromkeys(texts):
        letters = first_letters(text, _ALL)
        if len(letters) >= LETTERS:
            found[letters[:LETTERS]].append((text, letters, _first_word(text)))
    return dict(found)


def _first_word(text: str) -> str:
    """Without an article."""
    words = [word for word in words_of(text) if word not in _ARTICLES]
    return words[0] if words else ""


@cache
def _concepts() -> dict[str, list[tuple[str, str, str]]]:
    return _by_start(topic.title for topic in packaged_topics())
