"""Conditions of retrieval compared in pairs, and the tables that show them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from typing import Any

from selfie_adapters.config.evaluation.retrieval import TRAINING_LABELS
from selfie_adapters.evaluation.comparing import SIGNIFICANT, holm, p_text, paired
from selfie_adapters.evaluation.retrieval.lookup import KS, QueryRanks, Scored
from selfie_adapters.evaluation.retrieval.spelling import LETTERS, FirstLetters
from selfie_adapters.evaluation.tables import Table, shown


def compared(
    names: Sequence[str], scored: Sequence[Scored], oracles: Sequence[FirstLetters]
) -> Iterator[tuple[Scored, QueryRanks]]:
    """Pairs: what is under evaluation (`names`) with one another, with its own controls, and with
    what all share."""
    found = {one.condition: one for one in scored}
    yield from combinations([found[name] for name in names], 2)
    for name in names:
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


def compare_all(pairs: Iterable[tuple[QueryRanks, QueryRanks]], seed: int) -> list[dict[str, Any]]:
    """`compare` of every pair, with p values adjusted within each measure (Holm)."""
    every = [compare(first, second, seed) for first, second in pairs]
    for one in every:
        one |= {"p_holm": {}, "first_beats_second": {}}
    for name in every[0]["p"] if every else ():
        for one, p in zip(every, holm([one["p"][name] for one in every]), strict=True):
            one["p_holm"][name] = p
            above = one["difference"][name]["low"] > 0
            one["first_beats_second"][name] = above and p < SIGNIFICANT
    return every


def report_conditions(
    title: str, conditions: Iterable[Mapping[str, Any]], bold: Collection[str]
) -> Table:
    """The table of recalls; `bold`: the conditions that the others are compared with."""
    rows = []
    for one in conditions:
        recall = [shown(one["recall_at"][k], 1, 100) for k in ("1", "10", "100")]
        rank = shown(one["mean_reciprocal_rank"], 3)
        alike = one.get("same_start")  # not in results of earlier releases, nor of oracles
        first = "–" if alike is None else shown(alike["first"], 0, 100)
        rows.append([one["condition"], *recall, rank, f"{one['median_rank']:g}", first])
    columns = [
        "condition",
        "recall@1, %",
        "@10, %",
        "@100, %",
        "reciprocal rank",
        "median rank",
        f"first of those with the same {LETTERS} letters, %",
    ]
    return Table(title, columns, rows, bold)


def report_comparisons(comparisons: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """One line per pair of conditions."""
    for pair in comparisons:
        found = shown(pair["difference"]["recall_at_1"], 1, 100)
        p = p_text({"p_holm": pair.get("p_holm", {}).get("recall_at_1")})
        higher = f"{pair['first_ranks_higher']} and {pair['second_ranks_higher']}"
        counted = f"{higher} of {pair['queries']} ranked higher"
        yield (
            f"{pair['first']} minus {pair['second']}, recall@1: {found} points "
            f"({', '.join(filter(None, [p, counted]))})"
        )
