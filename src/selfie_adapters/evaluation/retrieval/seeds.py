"""Adapters of one recipe in the retrieval protocol: the seed as a level of the analysis."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from selfie_adapters.evaluation.comparing import adjusted, comparison, over_seeds, p_text
from selfie_adapters.evaluation.retrieval.lookup import QueryRanks
from selfie_adapters.evaluation.tables import shown

MEASURES: dict[str, Callable[[QueryRanks], np.ndarray]] = {
    "recall_at_1": lambda one: one.found_at(1),
    "recall_at_10": lambda one: one.found_at(10),
    "mean_reciprocal_rank": lambda one: one.reciprocal(),
}


def compare_recipes(
    found: Mapping[str, QueryRanks],
    recipes: Mapping[str, Sequence[str]],
    common: Iterable[QueryRanks],
    seed: int,
) -> list[dict[str, Any]]:
    """What the adapters of each recipe find on average, and how much more than their controls.

    found: conditions by name; each adapter's own controls are called "{adapter}: {control}".
    recipes: names of adapters by recipe (evaluation/recipes.py). common: conditions that all
    adapters share. All on the same queries. Intervals and p values: `comparing.over_seeds`.
    """
    results = []
    for recipe, names in recipes.items():
        against: dict[str, list[QueryRanks]] = {one.condition: [one] * len(names) for one in common}
        for condition in found:
            name, colon, control = condition.partition(": ")
            if colon and name == names[0]:
                against[control] = [found[f"{one}: {control}"] for one in names]
        tables = {
            measure: np.stack([of(found[name]) for name in names])
            for measure, of in MEASURES.items()
        }
        results.append(
            {
                "recipe": recipe,
                "adapters": [*names],
                **{
                    measure: asdict(over_seeds(table, seed=seed).difference)
                    for measure, table in tables.items()
                },
                "by_seed": tables["recall_at_1"].mean(axis=1).tolist(),
                "comparisons": [
                    comparison(
                        recipe,
                        other,
                        measure,
                        over_seeds(tables[measure] - np.stack([of(one) for one in its]), seed=seed),
                    )
                    for other, its in against.items()
                    for measure, of in MEASURES.items()
                ],
            }
        )
    adjusted(pair for one in results for pair in one["comparisons"])
    return results


def report_recipes(recipes: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Per recipe its recall@1, and what that beats."""
    for one in recipes:
        seeds = ", ".join(f"{100 * share:.0f}" for share in one["by_seed"])
        recall = shown(one["recall_at_1"], 1, 100)
        yield f"{one['recipe']}, {len(one['adapters'])} seeds: recall@1 {recall} % ({seeds})"
        pairs = [pair for pair in one["comparisons"] if pair["measure"] == "recall_at_1"]
        for beats, verb in ((True, "beats"), (False, "does NOT beat")):
            listed = [
                f"{pair['second']} {shown(pair['difference'], 1, 100)} {p_text(pair)}"
                for pair in pairs
                if pair["first_beats_second"] == beats
            ]
            if listed:
                yield f"{one['recipe']} {verb}, in points of recall@1: {'; '.join(listed)}"
