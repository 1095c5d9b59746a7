"""The tables that show retrievals: what each condition finds, and how much more than others."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from selfie_adapters.evaluation.comparing import difference_cell, side_by_side
from selfie_adapters.evaluation.recipes import SEEDS, over_members, subjects, titles_of
from selfie_adapters.evaluation.retrieval.spelling import LETTERS
from selfie_adapters.evaluation.tables import Table, shown

RetrievalResults = Mapping[str, Any]
FEW = 5  # adapters, up to which the report compares them with each other
_MEASURES: dict[str, tuple[str, int, float]] = {
    "recall_at_1": ("recall@1, points", 1, 100),
    "recall_at_10": ("recall@10, points", 1, 100),
    "mean_reciprocal_rank": ("reciprocal rank", 3, 1),
}
"""Name in results.json → heading, digits, factor."""


def merged(results: RetrievalResults) -> list[dict[str, Any]]:
    """The conditions of a results file in their form; a recipe's adapters are one condition.

    So is the same control of all of them. Their intervals are those of `recipes.over_members`,
    `median_rank` is a string, and what only holds of one is omitted.
    """
    conditions = {one["condition"]: one for one in results["conditions"]}
    titles = titles_of(results)
    over = {one["recipe"]: one for one in _recipes(results)}
    found = {}
    for condition, one in conditions.items():
        title, names, recipe = titles[condition]
        found[title] = _merged(title, [conditions[name] for name in names], over.get(recipe, {}))
        if len(names) == 1:
            found[title] = {**one}
    return list(found.values())


def _recipes(results: RetrievalResults) -> list[RetrievalResults]:
    return results.get("recipes", [])  # not in results of earlier releases


def _merged(title: str, of: Sequence[RetrievalResults], over: RetrievalResults) -> dict[str, Any]:
    recalls = {
        k: over_members([one["recall_at"][k] for one in of], over.get(f"recall_at_{k}"))
        for k in of[0]["recall_at"]
    }
    ranks = [one["mean_reciprocal_rank"] for one in of]
    medians = sorted(one["median_rank"] for one in of)
    first = over_members([(one.get("same_start") or {}).get("first") for one in of])
    return {
        "condition": title,
        "meaning": f"mean over {len(of)} seeds",
        "recall_at": recalls,
        "mean_reciprocal_rank": over_members(ranks, over.get("mean_reciprocal_rank")),
        "median_rank": "–".join(dict.fromkeys(f"{one:g}" for one in (medians[0], medians[-1]))),
        "same_start": None if first is None else {"first": first},
    }


def report_conditions(title: str, results: RetrievalResults, bold: Collection[str]) -> Table:
    """The table of recalls. bold: the conditions that the others are compared with.

    Each recipe's own controls are in the table of differences alone.
    """
    recipes = _recipes(results)
    own = tuple(f"{one['recipe']}: " for one in recipes)
    rows = []
    for one in merged(results):
        if len(recipes) > 1 and one["condition"].startswith(own):
            continue
        recall = [shown(one["recall_at"][k], 1, 100) for k in ("1", "10", "100")]
        rank, median = shown(one["mean_reciprocal_rank"], 3), one["median_rank"]
        alike = one.get("same_start")  # not in results of earlier releases, nor of oracles
        first = "–" if alike is None else shown(alike["first"], 0, 100)
        median = median if isinstance(median, str) else f"{median:g}"
        rows.append([one["condition"], *recall, rank, median, first])
    columns = [
        "condition",
        "recall@1, %",
        "@10, %",
        "@100, %",
        "reciprocal rank",
        "median rank",
        f"first of those with the same {LETTERS} letters, %",
    ]
    titles = titles_of(results)
    own_titles = {titles[name][0] for name in bold if name in titles}
    caption = "95 % intervals" + (SEEDS if recipes else "")
    return Table(title, columns, rows, own_titles, caption, narrow=True)


def report_differences(results: RetrievalResults) -> Iterator[Table]:
    """What each adapter, recipe or file of labels finds more than the others."""
    settings, recipes = results["settings"], _recipes(results)
    of = subjects([*settings["adapters"], *settings["labels"]], recipes)
    single = {one.name for one in of if len(one.adapters) == 1}
    adapters = {name for one in of for name in (one.name, *one.adapters)}
    titles = {one.name: one.title for one in of}
    rows = [
        (pair["first"], pair["second"], measure, difference, pair.get("p_holm", {}).get(measure))
        for pair in results["comparisons"]
        if pair["first"] in single
        for measure, difference in pair["difference"].items()
    ] + [
        (pair["first"], pair["second"], pair["measure"], pair["difference"], pair.get("p_holm"))
        for one in recipes
        for pair in one["comparisons"]
    ]
    alone = len(of) == 1
    cells, between = {}, {}
    for first, second, measure, difference, p in rows:
        if measure not in _MEASURES or (not alone and measure != "recall_at_1"):
            continue
        heading, digits, factor = _MEASURES[measure]
        among = second in adapters
        if among and (second not in titles or len(of) > FEW):
            continue
        second = titles.get(second, second.removeprefix(f"{first}: "))
        key = second, heading if alone else titles[first]
        (between if among else cells)[key] = difference_cell(difference, p, digits, factor)
    title = (
        f"{of[0].title}: finds more than" if alone else "Points of recall@1 that each finds more"
    )
    yield from side_by_side(title, "than", {**cells, **between}, "95 % intervals, Holm's p")


def report_minus(results: RetrievalResults, other: str) -> Iterator[Table]:
    """Each condition that was compared with `other`, minus that one."""
    titles = titles_of(results)
    pairs = {pair["first"]: pair for pair in results["comparisons"] if pair["second"] == other}
    cells = {}
    for name, pair in pairs.items():
        title, names, _ = titles.get(name, (name, (name,), ""))
        for measure, (heading, digits, factor) in _MEASURES.items():
            of = [pairs[one]["difference"][measure] for one in names if one in pairs]
            p = pair.get("p_holm", {}).get(measure) if len(names) == 1 else None
            cells[title, heading] = difference_cell(over_members(of), p, digits, factor)
    caption = "95 % intervals, Holm's p" + (
        "; of several seeds: mean (lowest–highest)" * bool(_recipes(results))
    )
    yield from side_by_side(f"More than {other}", "condition", cells, caption)
