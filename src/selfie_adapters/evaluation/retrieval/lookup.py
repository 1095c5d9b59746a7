"""Does a text find its topic among all topics? Recall at k, reciprocal ranks, comparisons.

Whatever is looked up (labels of an adapter, what a chat model says, the training labels) goes
through here, so that the numbers can be set side by side.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from selfie_adapters.evaluation.retrieval.embedding import Embedder
from selfie_adapters.evaluation.retrieval.title_index import (
    Entry,
    Places,
    Strategy,
    find_places,
    index_rows,
)
from selfie_adapters.statistics import bootstrap_mean

KS = (1, 5, 10, 20, 50, 100)


@dataclass(frozen=True)
class Query:
    """A text that is to find its topic.

    key: what it was said about, the same in all conditions; topic: number of the right topic.
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

    def summary(self, seed: int) -> dict[str, Any]:
        """What results.json holds of a condition; intervals are over queries."""
        return {
            "condition": self.condition,
            "meaning": self.meaning,
            "queries": len(self.queries),
            "different_texts": len({query.text for query in self.queries}),
            "recall_at": {str(k): asdict(bootstrap_mean(self.found_at(k), seed)) for k in KS},
            "mean_reciprocal_rank": asdict(bootstrap_mean(self.reciprocal(), seed)),
            "median_rank": float(np.median(self.places.rank)),
            "tied": int((self.places.tied > 0).sum()),
        }


class TopicIndex:
    """All topics, embedded."""

    def __init__(self, entries: Sequence[Entry], strategy: Strategy, embedder: Embedder) -> None:
        self.entries = entries
        self._embedder = embedder
        self._rows = index_rows(entries, strategy, embedder)

    def look_up(self, condition: str, meaning: str, queries: Sequence[Query]) -> Scored:
        """Where the topic of each query comes among all topics."""
        own = np.array([query.topic for query in queries], dtype=np.int64)
        vectors = self._embedder.embed([query.text for query in queries])
        return Scored(condition, meaning, queries, find_places(vectors, self._rows, own))

    def table(self, scored: Scored) -> Iterator[dict[str, Any]]:
        """One row a query: what was said, where its topic came, what came first."""
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


def compare(first: Scored, second: Scored, seed: int) -> dict[str, Any]:
    """`first` minus `second`, query by query, over the keys that both have.

    The bootstrap resamples differences: what makes a topic easy for both does not widen it.
    Raises ValueError if they have no key in common.
    """
    place = {query.key: i for i, query in enumerate(second.queries)}
    mine = [i for i, query in enumerate(first.queries) if query.key in place]
    theirs = [place[first.queries[i].key] for i in mine]
    a, b = first.places.rank[mine], second.places.rank[theirs]
    differences = {
        f"recall_at_{k}": bootstrap_mean(first.found_at(k)[mine] - second.found_at(k)[theirs], seed)
        for k in KS
    }
    differences["mean_reciprocal_rank"] = bootstrap_mean(
        first.reciprocal()[mine] - second.reciprocal()[theirs], seed
    )
    return {
        "first": first.condition,
        "second": second.condition,
        "queries": len(mine),
        "first_ranks_higher": int((a < b).sum()),
        "second_ranks_higher": int((b < a).sum()),
        "difference": {name: asdict(interval) for name, interval in differences.items()},
    }
