"""Does a vector find its own name among others, by the score that each method gives to names?

Names are compared in groups of `CANDIDATES`; each vector of a group picks one name of the group. In
the spelling control each vector has distractors of its own, which begin with the same token as its
name, so that the first letters alone do not find it.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from selfie_adapters.dataset.controls import shuffle_order
from selfie_adapters.errors import DataError
from selfie_adapters.evaluation.baselines import Baseline
from selfie_adapters.evaluation.comparing import Paired, sign_flip_p
from selfie_adapters.evaluation.controls import random_directions
from selfie_adapters.evaluation.naming.conditions import (
    RANDOM,
    SHUFFLED,
    ZERO,
    Naming,
    Readers,
)
from selfie_adapters.evaluation.outcomes import AdapterOutcomes, by_adapter
from selfie_adapters.evaluation.recipes import Subject
from selfie_adapters.inference.label_batches import tokenize_labels
from selfie_adapters.sources.topics.noun_forms import noun_forms
from selfie_adapters.sources.topics.reading import more_topics, packaged_topics
from selfie_adapters.sources.topics.wordnet import packaged_nouns
from selfie_adapters.statistics import PairedTable, wilson

CANDIDATES = 60
_OWN = ""


@dataclass(frozen=True)
class Found:
    """hits: [vectors], the chance that the vector's own name is first, per condition.

    1 or 0 unless scores are tied. control: "none" or "spelling". candidates: names that each vector
    chooses from, on average.
    """

    control: str
    candidates: float
    hits: dict[str, np.ndarray]

    @property
    def measure(self) -> str:
        """What comparisons of it are by."""
        return "own name first" + (", same first token" if self.control == "spelling" else "")

    def joined(self, other: Found) -> Found:
        """With the conditions of another adapter, on the same vectors and candidates."""
        return replace(self, hits={**self.hits, **other.hits})

    def summary(self, adapters: Sequence[str], of: Sequence[Subject]) -> dict[str, Any]:
        """What results.json holds: shares with Wilson intervals, and the adapters compared.

        adapters: their names among the conditions; of: themselves and their recipes.
        """
        found = ((name, {self.measure: hits}) for name, hits in self.hits.items())
        outcomes = AdapterOutcomes(by_adapter(found, adapters, _OWN), _OWN, pair=_paired_chances)
        return {
            "control": self.control,
            "vectors": len(next(iter(self.hits.values()))),
            "candidates": self.candidates,
            "first": {name: asdict(wilson(one.sum(), len(one))) for name, one in self.hits.items()},
            **outcomes.by_subject(of),
        }


def _paired_chances(first: np.ndarray, second: np.ndarray, *_about: Any) -> Paired:
    """The difference of two chances per vector; it has an interval where all are 0 or 1 too."""
    difference = PairedTable.of(first, second, np.arange(len(first))).difference()
    return Paired(difference, sign_flip_p(first - second))


def sampled_groups(names: Sequence[str], count: int, seed: int) -> list[list[int]]:
    """Rows with different names, sampled at random in complete groups of `CANDIDATES`.

    count: of rows, rounded up to complete groups if there are enough names. Empty if there are
    fewer than `CANDIDATES` different names.
    """
    first = {name: row for row, name in reversed(list(enumerate(names)))}
    order = np.random.default_rng(seed).permutation(sorted(first.values())).tolist()
    groups = min(-(-count // CANDIDATES), len(order) // CANDIDATES)
    return [order[CANDIDATES * i : CANDIDATES * (i + 1)] for i in range(groups)]


def retrieve(
    naming: Naming,
    readers: Readers,
    vectors: Tensor,
    names: Sequence[str],
    groups: Sequence[Sequence[int]],
    where: str = "",
) -> Found:
    """Names that are found among their group's.

    vectors: [n, d_model]; names: one per vector; groups: rows of `sampled_groups`, at least one.
    The shuffled condition gives every vector another one's name to find.
    """
    parts: dict[str, list[np.ndarray]] = {}

    def found(reader: Baseline, condition: str, number: int, rows: Tensor) -> None:
        group = [names[row] for row in groups[number]]

        def hits() -> list[float]:
            scores = reader.scores(rows, group)
            # Row i has the vector of row moved[i]: its own name is another one's.
            moved = scores[shuffle_order(len(group), naming.seed)]
            return [*hits_at(scores, 1).tolist(), *hits_at(moved, 1).tolist()]

        unit = f"{where}: {condition}, first of {len(group)}/{number}"
        naming.progress(unit, number, len(groups))
        both = np.array(naming.keep(unit, 2 * len(group), hits))
        parts.setdefault(condition, []).append(both[: len(group)])
        if condition == naming.adapter_name:
            parts.setdefault(naming.own(SHUFFLED), []).append(both[len(group) :])

    for number, group in enumerate(groups):
        own = vectors[list(group)]
        drawn = random_directions(len(group), own.shape[1], naming.seed)
        for reader in readers.all:
            found(reader, reader.name, number, own)
        random_vectors = drawn * own.norm(dim=-1, keepdim=True)
        found(readers.adapter, naming.own(RANDOM), number, random_vectors)
        # The gain of the zero vector is 0 for every name.
        parts.setdefault(naming.own(ZERO), []).append(np.full(len(group), 1 / len(group)))
    return Found("none", CANDIDATES, {name: np.concatenate(hits) for name, hits in parts.items()})


def retrieve_spelled(
    naming: Naming, readers: Readers, vectors: Tensor, names: Sequence[str], where: str = ""
) -> Found | None:
    """Names that are found among up to `CANDIDATES` - 1 others with the same first token.

    vectors: [n, d_model]; names: one per vector. The others are the package's nouns and names of
    `names`; a name without any is omitted. None where that leaves none.
    """
    pool = [*names, *(topic.title for topic in [*packaged_topics(), *more_topics()])]
    distractors = same_start_distractors(
        naming.model.tokenizer, names, pool, CANDIDATES - 1, naming.seed
    )
    candidates = [(row, [names[row], *one.names]) for row, one in enumerate(distractors)]
    candidates = [(row, some) for row, some in candidates if len(some) > 1]
    if not candidates:
        return None
    own = torch.zeros(1, dtype=torch.int64)  # the first one is right
    found: dict[str, np.ndarray] = {}
    for reader in readers.all:
        unit = f"{where}: {reader.name}, same first token"
        hits: list[float] = []
        for done, (row, some) in enumerate(candidates):
            naming.progress(unit, done, len(candidates))

            def first(reader: Baseline = reader, row: int = row, some: list[str] = some):
                return hits_at(reader.scores(vectors[row : row + 1], some), 1, own).tolist()

            hits += naming.keep(f"{unit}/{row}", 1, first)
        found[reader.name] = np.array(hits)
    found[naming.own(ZERO)] = np.array([1 / len(some) for _, some in candidates])
    return Found("spelling", sum(len(some) for _, some in candidates) / len(candidates), found)


def hits_at(scores: Tensor, k: int, right: Tensor | None = None) -> np.ndarray:
    """Chance of each row's own column to be among its k best: scores [n, m] → [n] in [0, 1].

    right: [n], each row's own column; None: entry (i, i). Higher is better. Ties are broken at
    random and the chance is exact, so a score that is the same for every candidate gets k / m.
    """
    right = torch.arange(len(scores)) if right is None else right
    own = scores.gather(1, right.to(scores.device).unsqueeze(1))
    better = (scores > own).sum(dim=1).cpu().numpy()
    tied = (scores == own).sum(dim=1).cpu().numpy()  # itself among them
    return np.clip((k - better) / tied, 0.0, 1.0)


@dataclass(frozen=True)
class SameStart:
    """Distractors of one query: names with its first token, `missing` fewer than requested."""

    names: tuple[str, ...]
    missing: int


def same_start_distractors(
    tokenizer: PreTrainedTokenizerBase,
    queries: Sequence[str],
    names: Sequence[str],
    k: int,
    seed: int = 0,
) -> list[SameStart]:
    """For each query, k of `names` with the same first token, sampled without repetition.

    The first token is that of the label as the model generates it, after the opening quote. A name
    is no distractor of a query that it equals in case, spelling or number (owl, Owls). Where fewer
    than k exist, all of them are returned, and `missing` states how many lack. A query's sample
    depends on the seed, the query and the names, not on the other queries. Raises DataError for
    k below 1 and for an empty query or name.
    """
    if k < 1:
        raise DataError(f"k is {k}; at least one distractor per query is expected.")
    irregular = packaged_nouns().irregular
    names = sorted(set(names))
    by_token: defaultdict[int, list[str]] = defaultdict(list)
    for name, token in zip(names, _first_tokens(tokenizer, names), strict=True):
        by_token[token].append(name)
    found: list[SameStart] = []
    for query, token in zip(queries, _first_tokens(tokenizer, queries), strict=True):
        own = noun_forms(query, irregular)
        free = [name for name in by_token[token] if not own & noun_forms(name, irregular)]
        chosen = random.Random(f"{seed} {query}").sample(free, min(k, len(free)))
        found.append(SameStart(tuple(chosen), k - len(chosen)))
    return found


def _first_tokens(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[int]:
    tokens = tokenize_labels(tokenizer, texts, end_id=0)
    return tokens.ids[tokens.starts].tolist()
