"""Conditions of retrieval compared in pairs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import combinations
from typing import Any

from selfie_adapters.config.evaluation.retrieval import TRAINING_LABELS
from selfie_adapters.evaluation.comparing import adjusted, paired
from selfie_adapters.evaluation.recipes import Subject
from selfie_adapters.evaluation.retrieval.lookup import KS, QueryRanks, Scored
from selfie_adapters.evaluation.retrieval.spelling import FirstLetters


def compared(
    of: Sequence[Subject],
    scored: Sequence[Scored],
    oracles: Sequence[FirstLetters],
) -> Iterator[tuple[Scored, QueryRanks]]:
    """Pairs: what is under evaluation and of no recipe with one another, with its own controls, and
    with what all share."""
    found = {one.condition: one for one in scored}
    names = [name for one in of for name in one.adapters]
    alone = [one.name for one in of if len(one.adapters) == 1]
    yield from combinations([found[name] for name in alone], 2)
    for name in alone:
        own = [one for one in scored if one.condition.startswith(f"{name}: ")]
        for other in (*own, *shared(names, scored, oracles)):
            yield found[name], other


def shared(
    names: Sequence[str], scored: Sequence[Scored], oracles: Sequence[FirstLetters]
) -> list[QueryRanks]:
    """Conditions that all under evaluation (`names`) share."""
    apart = (*(f"{name}: " for name in names), TRAINING_LABELS)
    common = [
        one for one in scored if one.condition not in names and not one.condition.startswith(apart)
    ]
    return [*common, *oracles]


def compare(first: QueryRanks, second: QueryRanks, seed: int) -> dict[str, Any]:
    """`first` minus `second`, query by query, over the keys that both have (`comparing.paired`).

    What makes a topic easy for both does not widen the interval. Raises ValueError if they have no
    key in common.
    """
    place = {query.key: i for i, query in enumerate(second.queries)}
    mine = [i for i, query in enumerate(first.queries) if query.key in place]
    theirs = [place[first.queries[i].key] for i in mine]
    a, b = first.ranks()[mine], second.ranks()[theirs]
    found = {
        f"recall_at_{k}": paired(first.found_at(k)[mine], second.found_at(k)[theirs], seed=seed)
        for k in KS
    }
    found["mean_reciprocal_rank"] = paired(
        first.reciprocal()[mine], second.reciprocal()[theirs], seed=seed
    )
    return {
        "first": first.condition,
        "second": second.condition,
        "queries": len(mine),
        "first_ranks_higher": int((a < b).sum()),
        "second_ranks_higher": int((b < a).sum()),
        "difference": {name: asdict(one.difference) for name, one in found.items()},
        "p": {name: one.p for name, one in found.items()},
    }


def compare_all(
    pairs: Iterable[tuple[QueryRanks, QueryRanks]],
    seed: int,
    more: Iterable[dict[str, Any]] = (),
) -> list[dict[str, Any]]:
    """`compare` of every pair, with p values adjusted within each measure (Holm).

    more: comparisons of recipes, of the same families; they are completed too.
    """
    every = [compare(first, second, seed) for first, second in pairs]
    flat = [
        [
            {"measure": name, "p": p, "difference": one["difference"][name]}
            for name, p in one["p"].items()
        ]
        for one in every
    ]
    adjusted([*(row for rows in flat for row in rows), *more])
    for one, rows in zip(every, flat, strict=True):
        for key in ("p_holm", "first_beats_second"):
            one[key] = {row["measure"]: row[key] for row in rows}
    return every
