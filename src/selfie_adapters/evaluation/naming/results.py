"""What tables and figures show of the naming protocol's results.json."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from selfie_adapters.evaluation.comparing import (
    DIFFERENCES,
    MeasureColumn,
    difference_cell,
    difference_tables,
    side_by_side,
)
from selfie_adapters.evaluation.naming.verdicts import ADAPTER
from selfie_adapters.evaluation.outcomes import every_comparison
from selfie_adapters.evaluation.recipes import SEEDS, Subject, over_members, subjects, titles_of
from selfie_adapters.evaluation.tables import Table, percent

READERS = ("logit lens", "ridge probe", "untrained")
"""What figures show of the methods without an adapter."""
FEW = 5  # adapters or recipes, up to which the report compares them with each other
_COMPARED = {
    "exact": MeasureColumn("exact, points", digits=0),
    "right or related": MeasureColumn("right or related, points", digits=0),
}
_SHARES = (
    "exact",
    "right or related",
    "shown",
    "right or related, of the shown",
    "same first letter, of the wrong",
)
NamedPlace = Mapping[str, Any]
"""A section of the results, or all blocks of a position kind."""


@dataclass(frozen=True)
class Panel:
    """Shares by block at one position kind: name of a condition → (block, share, low, high)."""

    title: str
    lines: Mapping[str, list[tuple[int, float, float, float]]]


def position_name(position: str) -> str:
    """How a position kind is called in tables and figures."""
    known = {"name": "the concept's own token", "-1": "last token of the prompt", "": "vectors"}
    return known.get(position, f"token {position} of the prompt")


def adapters_of(results: Mapping[str, Any]) -> list[str]:
    """The conditions that are the adapters' own labels."""
    return [*(results.get("settings", {}).get("adapters") or [ADAPTER])]


def merged(place: NamedPlace) -> list[dict[str, Any]]:
    """The conditions of a place in their form; a recipe's adapters are one condition, and so is the
    same control of all of them. Their shares are those of `recipes.over_members`."""
    conditions = {one["condition"]: one for one in place["conditions"]}
    over = {one["recipe"]: one["share"] for one in place.get("recipes", [])}
    found = {}
    for title, names, recipe in titles_of(place).values():
        of = [conditions[name] for name in names]
        shares = {
            measure: over_members(
                [one["share"][measure] for one in of], over.get(recipe, {}).get(measure)
            )
            for measure in of[0]["share"]
        }
        found[title] = {**of[0], "condition": title, "share": shares}
    return [*found.values()]


def own_titles(results: Mapping[str, Any], place: NamedPlace) -> list[str]:
    """Titles of the adapters, or of their recipes, in `merged`."""
    titles = titles_of(place)
    return [*dict.fromkeys(titles[name][0] for name in adapters_of(results) if name in titles)]


def naming_panels(results: Mapping[str, Any], measure: str = "right or related") -> list[Panel]:
    """One panel per position kind, from the content of results.json."""
    panels = []
    for pooled in results["positions"]:
        drawn = (*own_titles(results, pooled), *READERS)
        lines: dict[str, list[tuple[int, float, float, float]]] = {name: [] for name in drawn}
        for section in results["sections"]:
            if section["position"] != pooled["position"]:
                continue
            for condition in merged(section):
                if condition["condition"] in lines:
                    share = condition["share"][measure]
                    point = section["layer"], share["mean"], share["low"], share["high"]
                    lines[condition["condition"]].append(point)
        shown_lines = {name: points for name, points in lines.items() if points}
        panels.append(Panel(position_name(pooled["position"]), shown_lines))
    return panels


def report(results: Mapping[str, Any]) -> Iterator[Table | str]:
    """Per position kind a table by block, the shares over all blocks, and the comparisons."""
    adapters = adapters_of(results)
    for pooled in results["positions"]:
        sections = [one for one in results["sections"] if one["position"] == pooled["position"]]
        title, own = position_name(pooled["position"]), own_titles(results, pooled)
        yield _by_block(title, pooled, sections, own)
        yield from _over_blocks(title, pooled, own)
        yield from _differences(title, pooled, adapters)
        for control in dict.fromkeys(f["control"] for one in sections for f in one["retrieval"]):
            yield from _own_name_first(title, sections, control, adapters)
    if nulls := results["without_concept"]:
        several = results.get("settings", {}).get("adapters")
        yield from _without_concept(results, nulls if several else {ADAPTER: nulls})


def _by_block(
    title: str, pooled: NamedPlace, sections: Sequence[NamedPlace], own: Sequence[str]
) -> Table:
    columns = [*sections, pooled] if len(sections) > 1 else sections
    rows = [
        [row[0]["condition"], *(_cell(condition["share"]) for condition in row)]
        for row in zip(*(merged(one) for one in columns), strict=True)
    ]
    topics = pooled["conditions"][0]["topics"]
    heads = ["", *(f"block {one['layer']}" if "layer" in one else "all" for one in columns)]
    caption = "% exactly a name or synonym / % right or related"
    return Table(f"{title}, {topics} topics", heads, rows, own, caption, narrow=True)


def _cell(share: Mapping[str, Any]) -> str:
    return f"{100 * share['exact']['mean']:.0f} / {100 * share['right or related']['mean']:.0f}"


def _over_blocks(title: str, pooled: NamedPlace, own: Sequence[str]) -> Iterator[Table]:
    """The adapters' shares with their intervals."""
    cells = {
        (measure, one["condition"]): percent(one["share"].get(measure))
        for measure in _SHARES
        for one in merged(pooled)
        if one["condition"] in own
    }
    caption = "95 % intervals" + SEEDS * bool(pooled.get("recipes"))
    yield from side_by_side(f"{title}, all blocks", "% of labels", cells, caption)


def _compared(place: NamedPlace, of: Sequence[Subject]) -> list[Mapping[str, Any]]:
    """Comparisons that are shown, in the order of the subjects."""
    names = [one.name for one in of]
    pairs = (
        one
        for one in every_comparison(place)
        if one["first"] in names and (len(of) <= FEW or one["second"] not in names)
    )
    return sorted(pairs, key=lambda one: names.index(one["first"]))


def _differences(title: str, pooled: NamedPlace, adapters: Sequence[str]) -> Iterator[Table]:
    of = subjects(adapters, pooled.get("recipes", []))
    titles = {one.name: one.title for one in of}
    heading = f"{title}, all blocks, compared"
    yield from difference_tables(_compared(pooled, of), _COMPARED, heading, titles)


def _own_name_first(
    title: str, sections: Sequence[NamedPlace], control: str, adapters: Sequence[str]
) -> Iterator[Table]:
    """How often each condition gives a vector's own name the best score, block by block, and how
    much more often the adapters do."""
    cells, more = {}, {}
    counts: dict[str, None] = {}
    for section in sections:
        for found in section["retrieval"]:
            if found["control"] != control:
                continue
            counts[f"{found['candidates']:.0f}"] = None
            block = f"block {section['layer']}"
            recipes = found.get("recipes", [])
            conditions = [{"condition": name} for name in found["first"]]
            over = {one["recipe"]: next(iter(one["mean"].values())) for one in recipes}
            for name, names, recipe in titles_of(
                {"conditions": conditions, "recipes": recipes}
            ).values():
                members = [found["first"][one] for one in names]
                cells[name, block] = percent(over_members(members, over.get(recipe)))
            of = subjects(adapters, recipes)
            titles = {one.name: one.title for one in of}
            for one in _compared(found, of):
                second = titles.get(one["second"], one["second"])
                cell = difference_cell(one["difference"], one.get("p_holm"), 0, 100)
                more.setdefault(titles[one["first"]], {})[second, block] = cell
    same = " with the same first token" if control == "spelling" else ""
    heading = f"{title}: own name first of {'–'.join(counts)}{same}"
    yield from side_by_side(heading, "", cells, "% of vectors, 95 % intervals")
    for name, minus in more.items():
        yield from side_by_side(f"{heading}, points", f"{name} minus", minus, DIFFERENCES)


def _without_concept(results: Mapping[str, Any], nulls: Mapping[str, Any]) -> Iterator[str]:
    """What vectors without a concept show, by adapter or recipe."""
    first = results["positions"][0] if results["positions"] else {}
    for one in subjects(nulls, first.get("recipes", [])):
        found = over_members([nulls[name]["shown"] for name in one.adapters])
        of = f" ({one.title})" if len(nulls) > 1 else ""
        vectors = nulls[one.adapters[0]]["vectors"]
        yield f"vectors without a concept that show a label: {percent(found)} % of {vectors}{of}"
