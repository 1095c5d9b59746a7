"""What a page or table shows of the naming protocol's results.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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
