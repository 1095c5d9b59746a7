"""From rows of the bridge protocol to shares with intervals, differences, and the heat-map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import msgspec
import numpy as np

from selfie_adapters.evaluation.bridge.targets import ANSWER, BRIDGE, ENTITY, WORDS, Hits, TargetRow
from selfie_adapters.evaluation.comparing import (
    METHOD,
    Paired,
    adjusted,
    comparison,
    sign_flip_p,
)
from selfie_adapters.evaluation.same_start import SAME_START
from selfie_adapters.statistics import PairedTable, interval_of, wilson


class BridgeRow(msgspec.Struct):
    """One question under one condition. hits: labels that name the bridge, layers × positions;
    labels: how many there are in all. targets: what is found of each role; the bridge's hits are in
    it again. The rest is in rows of the first condition only."""

    meaning: str
    hits: Hits
    labels: Annotated[int, msgspec.Meta(gt=0)]
    examples: list[dict[str, int | str]]
    targets: dict[str, TargetRow] = {}
    prompt: str = ""
    bridge: str = ""
    names_bridge: bool = False
    layers: list[int] = []
    positions: list[int] = []
    last: int = 0
    entity: list[int] | None = None
    tokens: list[str] = []
    aliases: list[str] = []
    texts: list[list[list[str]]] | None = None


TRAINED = "trained"
BASE = "others of the category"
INTERVAL = (
    "95 %; shares: Wilson's, differences: Newcombe's, with as many units as there are distinct "
    f"bridges; share of labels: bootstrap over questions; {METHOD}"
)
ROLES = (WORDS, ENTITY, BRIDGE, ANSWER)


@dataclass(frozen=True)
class _Outcomes:
    """values: 0 to 1 for each question; bridges: their bridges.

    Means are over questions. Questions that share a bridge are not independent: intervals have as
    many units as there are distinct bridges.
    """

    values: np.ndarray
    bridges: np.ndarray

    @property
    def units(self) -> int:
        return len(set(self.bridges.tolist()))

    def share(self) -> dict[str, Any]:
        return asdict(wilson(float(self.values.mean()) * self.units, self.units))

    def minus(self, other: np.ndarray) -> Paired:
        one, weight = self.values, self.units / len(self.values)
        table = PairedTable(
            weight * float((one * other).sum()),
            weight * float((one * (1 - other)).sum()),
            weight * float(((1 - one) * other).sum()),
            weight * float(((1 - one) * (1 - other)).sum()),
        )
        _, bridge = np.unique(self.bridges, return_inverse=True)
        return Paired(table.difference(), sign_flip_p(np.bincount(bridge, one - other)))


def summarize(
    rows: Mapping[str, Any], uids: Sequence[str], seed: int, lead: str = TRAINED
) -> dict[str, Any]:
    """Conditions, differences to the trained one, what is found of each role, the heat-map.

    rows: of the evaluation's folder, "condition/uid" → row; uids: the questions that were read.
    lead: the condition with the heat-map; without an adapter there are no differences.
    """
    by_condition: dict[str, list[dict[str, Any]]] = {}
    for condition in dict.fromkeys(key.partition("/")[0] for key in rows):
        by_condition[condition] = [rows[f"{condition}/{uid}"] for uid in uids]
    first = by_condition[lead]
    bridges = np.array([row["bridge"] for row in first])
    plain = np.array([not row["names_bridge"] for row in first])
    table: list[dict[str, Any]] = []
    decoded: dict[str, np.ndarray] = {}
    for condition, of in by_condition.items():
        decoded[condition] = np.array([_somewhere(row["hits"]) for row in of])
        shares = [sum(map(sum, row["hits"])) / row["labels"] for row in of]
        table.append(
            {
                "condition": condition,
                "meaning": of[0]["meaning"],
                "decoded": _Outcomes(decoded[condition], bridges).share(),
                "decoded_of_those_that_name_no_alias": _Outcomes(
                    decoded[condition][plain], bridges[plain]
                ).share()
                if plain.any()
                else None,
                "share_of_labels": interval_of(shares, seed),
            }
        )
    own = _Outcomes(decoded[lead], bridges)
    targets, compared = [], []
    for role in ROLES:
        for condition, of in by_condition.items():
            if (found := _Found.of(role, of, first)) is not None:
                targets.append(found.summary(role, condition, first[0]["layers"]))
                if condition == lead:
                    compared.append(comparison(lead, BASE, role, found.minus_base()))
                    if (alike := found.with_same_start()) is not None:
                        minus = alike.minus_same_start()
                        compared.append(comparison(lead, SAME_START, role, minus))
    compared += [
        comparison(lead, name, BRIDGE, own.minus(values))
        for name, values in decoded.items()
        if name != lead
    ]
    return {
        "interval": INTERVAL,
        "lead": lead,
        "conditions": table,
        "comparisons": adjusted(compared),
        "targets": targets,
        "by_layer": _by_layer(first),
        "by_part": _by_part(first),
        "order": _order(first),
        "heat_map": heat_map(first),
    }


@dataclass(frozen=True)
class _Found:
    """What is found of a role in the labels of a condition, in questions that have others to
    compare with: rows [questions] of `TargetRow`."""

    rows: Sequence[dict[str, Any]]
    bridges: np.ndarray

    @classmethod
    def of(
        cls, role: str, rows: Sequence[dict[str, Any]], lead: Sequence[dict[str, Any]]
    ) -> _Found | None:
        pairs = [
            (row["targets"][role], first["bridge"])
            for row, first in zip(rows, lead, strict=True)
            if role in row["targets"] and row["targets"][role]["others"]
        ]
        if not pairs:
            return None
        return cls([row for row, _ in pairs], np.array([bridge for _, bridge in pairs]))

    def named(self) -> _Outcomes:
        return _Outcomes(np.array([one["named"] for one in self.rows]), self.bridges)

    def base(self) -> _Outcomes:
        return _Outcomes(np.array([one["others_named"] for one in self.rows]), self.bridges)

    def minus_base(self) -> Paired:
        return self.named().minus(self.base().values)

    def with_same_start(self) -> _Found | None:
        """Of the questions for which names with the same start were looked for; None of none."""
        some = [i for i, one in enumerate(self.rows) if one.get("same_start")]
        return _Found([self.rows[i] for i in some], self.bridges[some]) if some else None

    def same_start(self) -> _Outcomes:
        return _Outcomes(np.array([one["same_start_named"] for one in self.rows]), self.bridges)

    def minus_same_start(self) -> Paired:
        return self.named().minus(self.same_start().values)

    def summary(self, role: str, condition: str, layers: Sequence[int]) -> dict[str, Any]:
        """How often it is named, how often others, and names that begin alike, are in the same
        labels; the first two by layer too."""
        alike = self.with_same_start()
        by_layer = {}
        for number, layer in enumerate(layers):
            here = np.array([one["named_by_layer"][number] for one in self.rows])
            there = np.array([one["others_by_layer"][number] for one in self.rows])
            by_layer[str(layer)] = {
                "named": _Outcomes(here, self.bridges).share(),
                "base": _Outcomes(there, self.bridges).share(),
            }
        return {
            "target": role,
            "condition": condition,
            "questions": len(self.rows),
            "named": self.named().share(),
            "base": self.base().share(),
            "minus_base": asdict(self.minus_base().difference),
            "questions_with_same_start": 0 if alike is None else len(alike.rows),
            "same_start": None if alike is None else alike.same_start().share(),
            "minus_same_start": None
            if alike is None
            else asdict(alike.minus_same_start().difference),
            "by_layer": by_layer,
        }


def _somewhere(hits: Sequence[Sequence[int]]) -> float:
    return float(any(any(row) for row in hits))


def _by_layer(lead: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Share of the questions that are decoded at the layer, at whichever token."""
    layers = lead[0]["layers"]
    return {
        str(layer): float(np.mean([any(row["hits"][i]) for row in lead]))
        for i, layer in enumerate(layers)
    }


def _by_part(lead: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Share of the questions whose bridge is named before, at, and after the entity's tokens.

    Before the entity no state can hold the bridge: what is named there is chance, in fewer labels.
    """
    located = [row for row in lead if row["entity"] is not None]
    parts: dict[str, Any] = {}
    for name in ("before the entity", "at the entity", "after the entity"):
        found, bridges = [], []
        for row in located:
            first, last = row["entity"]
            columns = [
                column
                for column, position in enumerate(row["positions"])
                if name.split()[0]
                == ("before" if position < first else "at" if position <= last else "after")
            ]
            if columns:
                found.append(float(any(layer[c] for layer in row["hits"] for c in columns)))
                bridges.append(row["bridge"])
        if found:
            parts[name] = _Outcomes(np.array(found), np.array(bridges)).share()
    return parts


def _order(lead: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Of the questions whose bridge and answer are both named: which is in the earlier block."""
    counts = {"bridge first": 0, "answer first": 0, "same block": 0}
    for row in lead:
        blocks = []
        for role in (BRIDGE, ANSWER):
            hits = row["targets"][role]["hits"]
            blocks.append(next((i for i, layer in enumerate(hits) if any(layer)), None))
        bridge, answer = blocks
        if bridge is None or answer is None:
            continue
        name = "same block"
        if bridge != answer:
            name = "bridge first" if bridge < answer else "answer first"
        counts[name] += 1
    return counts


def heat_map(lead: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Share of labels that name the bridge, layer × token, averaged over questions.

    Tokens are counted from the question's last one, which is 0; positions that fewer than half of
    the questions have are omitted. `share` is layers × places.
    """
    layers = lead[0]["layers"]
    sums: dict[int, np.ndarray] = {}
    counts: dict[int, int] = {}
    for row in lead:
        samples = row["labels"] / (len(layers) * len(row["positions"]))
        grid = np.array(row["hits"], dtype=float) / samples
        for column, position in enumerate(row["positions"]):
            place = position - row["last"]
            sums[place] = sums.get(place, np.zeros(len(layers))) + grid[:, column]
            counts[place] = counts.get(place, 0) + 1
    places = sorted(place for place, count in counts.items() if 2 * count >= len(lead))
    share = np.stack([sums[place] / counts[place] for place in places], axis=1)
    return {
        "layers": layers,
        "places": places,
        "questions": [counts[place] for place in places],
        "share": share.round(6).tolist(),
    }
