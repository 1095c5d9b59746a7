"""An index of topics, and the place of the right one among all of them for each text.

Exact: every text is compared with every topic, a few texts at a time, so that the scores of
50,000 topics and 5,000 texts never lie in memory together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np

from selfie_adapters.config.evaluation.retrieval import Strategy
from selfie_adapters.errors import ConfigError, nearest
from selfie_adapters.evaluation.retrieval.embedding import Embedder

SCORES_AT_ONCE = 8_000_000  # 32 MB of float32, and a few times that while they are sorted
# Cosines of the same two texts differ by rounding between two products: no better than equal.
ROUNDING = 1e-6


@dataclass(frozen=True)
class Entry:
    """A topic as it stands in the index: its title, and what else is said of it."""

    title: str
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Places:
    """Where each text's own topic came, [texts] each; nearest and cosines: [texts, k], best first.

    rank: 1 + how many other topics are strictly better. tied: how many others are as good.
    """

    rank: np.ndarray
    tied: np.ndarray
    similarity: np.ndarray
    nearest: np.ndarray
    cosines: np.ndarray


def index_rows(entries: Sequence[Entry], strategy: Strategy, embedder: Embedder) -> np.ndarray:
    """Unit vectors of topics, [topics, width].

    title: the title alone. title_and_first_label, title_and_all_labels: one text, "title: label;
    label". mean: the mean of the unit vectors of title and labels, unit norm again. A label that
    is the title itself is not said twice.
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


def find_places(queries: np.ndarray, index: np.ndarray, own: np.ndarray, k: int = 5) -> Places:
    """Compare queries [texts, width] with index [topics, width], both of unit norm.

    own: [texts], the right topic of each text.
    """
    count, topics = len(queries), len(index)
    k = min(k, topics)
    places = Places(
        np.empty(count, np.int64),
        np.empty(count, np.int64),
        np.empty(count, np.float32),
        np.empty((count, k), np.int64),
        np.empty((count, k), np.float32),
    )
    at_once = max(1, SCORES_AT_ONCE // topics)
    for start in range(0, count, at_once):
        here = slice(start, start + at_once)
        scores = queries[here] @ index.T
        rows = np.arange(len(scores))
        right = scores[rows, own[here]]
        better = (scores > right[:, None] + ROUNDING).sum(axis=1)
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
