"""Adapters of one recipe in the retrieval protocol: the seed as a level of the analysis."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from selfie_adapters.evaluation.outcomes import AdapterOutcomes, Values, by_adapter
from selfie_adapters.evaluation.recipes import Subject
from selfie_adapters.evaluation.retrieval.lookup import QueryRanks

MEASURES: dict[str, Callable[[QueryRanks], np.ndarray]] = {
    "recall_at_1": lambda one: one.found_at(1),
    "recall_at_10": lambda one: one.found_at(10),
    "mean_reciprocal_rank": lambda one: one.reciprocal(),
}
_OWN = ""


def compare_recipes(
    found: Mapping[str, QueryRanks],
    of: Sequence[Subject],
    common: Iterable[QueryRanks],
    seed: int,
) -> list[dict[str, Any]]:
    """What the adapters of each recipe find on average, and how much more than their controls, the
    other recipes and what is in none.

    found: conditions by name; each adapter's own controls are called "{adapter}: {control}". of:
    what is under evaluation. common: conditions that all share. All on the same queries. p values
    are not adjusted yet.
    """
    names = [name for one in of for name in one.adapters]
    own = [one for name, one in found.items() if name.startswith((*(f"{n}: " for n in names),))]
    conditions = [*(found[name] for name in names), *own, *common]
    values = by_adapter(((one.condition, _values(one)) for one in conditions), names, _OWN)
    outcomes = AdapterOutcomes(values, _OWN, seed=seed)
    several = [one for one in of if len(one.adapters) > 1]
    compared = [pair for one in several for pair in outcomes.with_controls(one)]
    for one, two in combinations(of, 2):
        if one in several or two in several:
            first, second = (one, two) if one in several else (two, one)
            compared += outcomes.between(first, second)
    results = []
    for subject in several:
        recipe = outcomes.recipe(subject)
        results.append(
            {
                "recipe": subject.name,
                "adapters": recipe["adapters"],
                **recipe["mean"],
                "by_seed": recipe["by_seed"]["recall_at_1"],
                "comparisons": [one for one in compared if one["first"] == subject.name],
            }
        )
    return results


def _values(one: QueryRanks) -> Values:
    return {measure: of(one) for measure, of in MEASURES.items()}
