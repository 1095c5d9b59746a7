"""Adapters of one recipe in the retrieval protocol: the seed as a level of the analysis."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from selfie_adapters.evaluation.comparing import adjusted, comparison, over_seeds
from selfie_adapters.evaluation.retrieval.lookup import QueryRanks

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
