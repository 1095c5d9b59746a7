"""Where strings lead among all topics: exact ranks, recall at k, reciprocal ranks.

Whatever is looked up (labels of an adapter, what a chat model writes, the training labels) goes
through here, so that the numbers can be compared. Every string is compared with every topic, a
few at a time: the scores of 50,000 topics and 5,000 strings are never in memory together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, get_args

import numpy as np

from selfie_adapters.config.evaluation.retrieval import Strategy
from selfie_adapters.errors import ConfigError, nearest
from selfie_adapters.evaluation.retrieval.embedding import Embedder
from selfie_adapters.evaluation.retrieval.spelling import FirstLetters, same_start
from selfie_adapters.statistics import bootstrap_mean, share_interval, share_of

KS = (1, 5, 10, 20, 50, 100)
SCORES_AT_ONCE = 8_000_000  # 32 MB of float32, and a few times that while they are sorted
# Cosines of the same two strings differ by rounding between two products: no better than equal.
ROUNDING = 1e-6


@dataclass(frozen=True)
class Entry:
    """A topic in the index: its title and its other labels."""

    title: str
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Places:
    """Where each string's own topic came, [n] each; nearest and cosines: [n, k], best first.

    rank: 1 + how many other topics are strictly better. tied: how many others are as good.
    start_rank: the rank among the topics that begin with the same letters, of which there are
    `start_size`, itself among them.
    """

    rank: np.ndarray
    tied: np.ndarray
    similarity: np.ndarray
    nearest: np.ndarray
    cosines: np.ndarray
    start_rank: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    start_size: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))


def index_rows(entries: Sequence[Entry], strategy: Strategy, embedder: Embedder) -> np.ndarray:
    """Unit vectors of topics, [topics, width].

    title: the title alone. title_and_first_label, title_and_all_labels: one text, "title: label;
    label". mean: the mean of the unit vectors of title and labels, unit norm again. A label that
    is the title itself is not repeated.
    """
    if strategy not in get_args(Strategy):
        raise ConfigError(f"index {strategy!r}: {nearest(strategy, get_args(Strategy))}")
    if strategy != "mean":
        count = {"title": 0, "title_and_first_label": 1, "title_and_all_labels": None}[strategy]
        return embedder.embed([_one_text(entry, count) for entry in entries])
    rows: list[np.ndarray] = []
    for start in range(0, len(entries), 4096):  # all labels of all topics would not fit
        part = [[entry.title, *_others(entry)] for entry in entries[start : start + 4096]]
        lengths = [len(texts) for texts in part]
        vectors = embedder.embed([text for texts in part for text in texts])
        sums = np.add.reduceat(vectors, np.cumsum([0, *lengths[:-1]]), axis=0)
        rows.append(sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12))
    return np.concatenate(rows)


def _others(entry: Entry) -> list[str]:
    return [label for label in entry.labels if label != entry.title]


def _one_text(entry: Entry, count: int | None) -> str:
    labels = _others(entry)[:count]
    return f"{entry.title}: {'; '.join(labels)}" if labels else entry.title


def find_places(
    queries: np.ndarray,
    index: np.ndarray,
    own: np.ndarray,
    k: int = 5,
    starts: np.ndarray | None = None,
) -> Places:
    """Compare queries [n, width] with index [topics, width], both of unit norm.

    own: [n], the right topic of each query. starts: [topics], equal where titles begin with the
    same letters; None: nowhere.
    """
    count, topics = len(queries), len(index)
    k = min(k, topics)
    starts = np.arange(topics) if starts is None else starts
    places = Places(
        np.empty(count, np.int64),
        np.empty(count, np.int64),
        np.empty(count, np.float32),
        np.empty((count, k), np.int64),
        np.empty((count, k), np.float32),
        np.empty(count, np.int64),
        np.bincount(starts)[starts[own]],
    )
    at_once = max(1, SCORES_AT_ONCE // topics)
    for start in range(0, count, at_once):
        here = slice(start, start + at_once)
        scores = queries[here] @ index.T
        rows = np.arange(len(scores))
        right = scores[rows, own[here]]
        above = scores > right[:, None] + ROUNDING
        alike = starts[own[here]][:, None] == starts
        places.start_rank[here] = (above & alike).sum(axis=1) + 1
        better = above.sum(axis=1)
        at_least = (scores >= right[:, None] - ROUNDING).sum(axis=1)
        places.rank[here] = better + 1
        places.tied[here] = at_least - better - 1  # itself is not another
        places.similarity[here] = right
        top = np.sort(np.argpartition(scores, topics - k, axis=1)[:, topics - k :], axis=1)
        cosines = np.take_along_axis(scores, top, axis=1)
        order = np.argsort(-cosines, axis=1, kind="stable")
        places.nearest[here] = np.take_along_axis(top, order, axis=1)
        places.cosines[here] = np.take_along_axis(cosines, order, axis=1)
    return places


@dataclass(frozen=True)
class Query:
    """A text that is to find its topic.

    key: what the text is about, the same in all conditions; topic: number of the right topic.
    scale: of the vector, where the text came from one.
    """

    key: str
    topic: int
    text: str
    scale: float | None = None


@dataclass(frozen=True)
class Scored:
    """The queries of one condition and where their topics came."""

    condition: str
    meaning: str
    queries: Sequence[Query]
    places: Places

    def found_at(self, k: int) -> np.ndarray:
        """[queries], 1.0 where at most k - 1 other topics are strictly better."""
        return (self.places.rank <= k).astype(np.float64)

    def reciprocal(self) -> np.ndarray:
        """[queries], one over the rank."""
        return 1.0 / self.places.rank

    def ranks(self) -> np.ndarray:
        """[queries], the rank of the own topic."""
        return self.places.rank

    def summary(self, seed: int) -> dict[str, Any]:
        """What results.json holds of a condition; intervals are over queries."""
        return {
            **summary_of(self, seed),
            "different_texts": len({query.text for query in self.queries}),
            "tied": int((self.places.tied > 0).sum()),
            "same_start": self._same_start(),
        }

    def _same_start(self) -> dict[str, Any] | None:
        """Among the topics that begin as the own one does; None where no query has another one."""
        sizes, ranks = self.places.start_size, self.places.start_rank
        among = sizes > 1
        if not among.any():
            return None
        return {
            "queries": int(among.sum()),
            "topics": float(sizes[among].mean()),
            "first": share_of(ranks[among] == 1),
            "chance": float((1 / sizes[among]).mean()),
        }


QueryRanks = Scored | FirstLetters
"""What has a rank for each query, and can be compared with others."""


def summary_of(one: QueryRanks, seed: int) -> dict[str, Any]:
    """What results.json holds of every condition, an oracle's too."""
    return {
        "condition": one.condition,
        "meaning": one.meaning,
        "queries": len(one.queries),
        "recall_at": {str(k): asdict(share_interval(one.found_at(k))) for k in KS},
        "mean_reciprocal_rank": asdict(bootstrap_mean(one.reciprocal(), seed)),
        "median_rank": float(np.median(one.ranks())),
    }


class TopicIndex:
    """All topics, embedded."""

    def __init__(self, entries: Sequence[Entry], strategy: Strategy, embedder: Embedder) -> None:
        self.entries = entries
        self._embedder = embedder
        self._rows = index_rows(entries, strategy, embedder)
        self._starts = same_start([entry.title for entry in entries])

    def look_up(self, condition: str, meaning: str, queries: Sequence[Query]) -> Scored:
        """Where the topic of each query comes among all topics."""
        own = np.array([query.topic for query in queries], dtype=np.int64)
        vectors = self._embedder.embed([query.text for query in queries])
        places = find_places(vectors, self._rows, own, starts=self._starts)
        return Scored(condition, meaning, queries, places)

    def first_letters(self, queries: Sequence[Query], letters: int) -> FirstLetters:
        """The oracle that knows the first letters of each query's topic."""
        return FirstLetters([entry.title for entry in self.entries], queries, letters)

    def table(self, scored: Scored) -> Iterator[dict[str, Any]]:
        """One row per query: the text, the rank of its topic, the nearest topics."""
        places = scored.places
        for i, query in enumerate(scored.queries):
            near = zip(places.nearest[i].tolist(), places.cosines[i].tolist(), strict=True)
            yield {
                "condition": scored.condition,
                "key": query.key,
                "topic_number": query.topic,
                "topic": self.entries[query.topic].title,
                "label": query.text,
                "scale": query.scale,
                "rank": int(places.rank[i]),
                "tied": int(places.tied[i]),
                "similarity": round(float(places.similarity[i]), 4),
                "nearest": [
                    {"topic": self.entries[number].title, "similarity": round(cosine, 4)}
                    for number, cosine in near
                ],
            }
