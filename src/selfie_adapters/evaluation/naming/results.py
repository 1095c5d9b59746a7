"""What tables and figures show of the naming protocol's results.json."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from selfie_adapters.evaluation.tables import Table, percent

DRAWN = ("adapter", "logit lens", "ridge probe", "untrained")


@dataclass(frozen=True)
class Panel:
    """Shares by block at one position kind: name of a condition → (block, share, low, high)."""

    title: str
    lines: Mapping[str, list[tuple[int, float, float, float]]]


def position_name(position: str) -> str:
    """How a position kind is called in tables and figures."""
    known = {"name": "the concept's own token", "-1": "last token of the prompt", "": "vectors"}
    return known.get(position, f"token {position} of the prompt")


def naming_panels(results: Mapping[str, Any], measure: str = "right or related") -> list[Panel]:
    """One panel per position kind, from the content of results.json."""
    panels = []
    for position in [one["position"] for one in results["positions"]]:
        lines: dict[str, list[tuple[int, float, float, float]]] = {}
        for section in results["sections"]:
            if section["position"] != position:
                continue
            for condition in section["conditions"]:
                if condition["condition"] in DRAWN:
                    share = condition["share"][measure]
                    point = section["layer"], share["mean"], share["low"], share["high"]
                    lines.setdefault(condition["condition"], []).append(point)
        drawn = {name: lines[name] for name in DRAWN if name in lines}
        panels.append(Panel(position_name(position), drawn))
    return panels


def report(results: Mapping[str, Any]) -> Iterator[Table | str]:
    """A table per position kind, then the comparisons over all of its blocks."""
    for pooled in results["positions"]:
        sections = [one for one in results["sections"] if one["position"] == pooled["position"]]
        topics = pooled["conditions"][0]["topics"]
        columns = [*sections, pooled] if len(sections) > 1 else sections
        rows = [
            [row[0]["condition"], *(_cell(condition["share"]) for condition in row)]
            for row in zip(*(one["conditions"] for one in columns), strict=True)
        ]
        yield Table(
            f"{position_name(pooled['position'])}, {topics} topics",
            ["", *(f"block {one['layer']}" if "layer" in one else "all" for one in columns)],
            rows,
            bold={"adapter"},
            caption="% name or synonym to the letter / % right or related",
            narrow=True,
        )
        yield from _lines(pooled, sections)
    if nulls := results["without_concept"]:
        shown = percent(nulls["shown"])
        yield f"vectors without a concept that show a label: {shown} % of {nulls['vectors']}"


def _cell(share: Mapping[str, Any]) -> str:
    return f"{100 * share['exact']['mean']:.0f} / {100 * share['right or related']['mean']:.0f}"


def _lines(pooled: Mapping[str, Any], sections: list[Any]) -> list[str]:
    share = pooled["conditions"][0]["share"]
    measures = {
        "exact": "to the letter",
        "right or related": "right or related",
        "shown": "shown",
        "right or related, of the shown": "right or related of those",
    }
    counted = (f"{percent(share[name])} % {what}" for name, what in measures.items() if share[name])
    lines = [f"adapter: {', '.join(counted)}"]
    if spelled := share["same first letter, of the wrong"]:
        lines.append(f"wrong labels with the name's first letter: {percent(spelled)} %")
    pairs = [one for one in pooled["comparisons"] if one["measure"] == "right or related"]
    for beats, verb in ((True, "beats"), (False, "does NOT beat")):
        found = [
            f"{one['second']} {percent(one['difference'], sign='+')}"
            for one in pairs
            if one["first_beats_second"] == beats
        ]
        if found:
            lines.append(f"adapter {verb}, in points right or related: {', '.join(found)}")
    for one in sections:
        for found in one["retrieval"]:
            same = " with the same first token" if found["control"] == "spelling" else ""
            first = ", ".join(
                f"{name} {100 * hits['mean']:.0f}" for name, hits in found["first"].items()
            )
            lines.append(
                f"block {one['layer']}, own name first of {found['candidates']:.0f}{same}, %: "
                f"{first} ({found['vectors']} vectors)"
            )
    return lines
