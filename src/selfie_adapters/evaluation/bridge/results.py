"""From rows of the bridge protocol to shares with intervals, differences, and the heat-map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec
import numpy as np

from selfie_adapters.statistics import interval_of

Hits = list[list[Annotated[int, msgspec.Meta(ge=0)]]]


class BridgeRow(msgspec.Struct):
    """One question under one condition. hits: labels that name the bridge, layers × positions;
    labels: how many there are in all. The rest is in rows of the first condition only."""

    meaning: str
    hits: Hits
    labels: Annotated[int, msgspec.Meta(gt=0)]
    examples: list[dict[str, int | str]]
    prompt: str = ""
    bridge: str = ""
    names_bridge: bool = False
    layers: list[int] = []
    positions: list[int] = []
    last: int = 0
    tokens: list[str] = []
    shuffled_hits: Hits | None = None
    shuffled_bridge: str | None = None
    aliases: list[str] = []
    texts: list[list[list[str]]] | None = None


TRAINED, SHUFFLED = "trained", "shuffled"
_SHUFFLED_MEANING = "the {} labels, matched with another question's bridge"


def summarize(
    rows: Mapping[str, Any], uids: Sequence[str], seed: int, lead: str = TRAINED
) -> dict[str, Any]:
    """Conditions, differences to the trained one, and the averaged heat-map.

    rows: of the evaluation's folder, "condition/uid" → row; uids: the questions that were read.
    lead: the condition with the heat-map; without an adapter there are no differences.
    """
    by_condition: dict[str, dict[str, Any]] = {}
    for key, row in rows.items():
        condition, _, uid = key.partition("/")
        by_condition.setdefault(condition, {})[uid] = row
    trained = [by_condition[lead][uid] for uid in uids]
    plain = np.array([not row["names_bridge"] for row in trained])
    table: list[dict[str, Any]] = []
    decoded: dict[str, np.ndarray] = {}
    for condition, found in by_condition.items():
        of = [found[uid] for uid in uids]
        decoded[condition] = np.array([_somewhere(row["hits"]) for row in of])
        shares = np.array([_share(row["hits"], row["labels"]) for row in of])
        meaning = of[0]["meaning"]
        table.append(_entry(condition, meaning, decoded[condition], shares, plain, seed))
    differences = {
        name: interval_of(decoded[TRAINED] - values, seed)
        for name, values in decoded.items()
        if TRAINED in decoded and name != TRAINED
    }
    paired = np.array(["shuffled_hits" in row for row in trained])
    if paired.any():
        of = [row for row in trained if "shuffled_hits" in row]
        moved = np.array([_somewhere(row["shuffled_hits"]) for row in of])
        shares = np.array([_share(row["shuffled_hits"], row["labels"]) for row in of])
        entry = _entry(SHUFFLED, _SHUFFLED_MEANING.format(lead), moved, shares, plain[paired], seed)
        table.insert(1, entry)
        if lead == TRAINED:
            differences[SHUFFLED] = interval_of(decoded[TRAINED][paired] - moved, seed)
    return {
        "lead": lead,
        "conditions": table,
        "trained minus": differences,
        "by_layer": _by_layer(trained),
        "heat_map": heat_map(trained),
    }


def _entry(
    name: str, meaning: str, decoded: np.ndarray, shares: np.ndarray, plain: np.ndarray, seed: int
) -> dict[str, Any]:
    """decoded, shares: a number per question; plain: those that name the bridge by no alias."""
    return {
        "condition": name,
        "meaning": meaning,
        "decoded": interval_of(decoded, seed),
        "decoded_of_those_that_name_no_alias": interval_of(decoded[plain], seed),
        "share_of_labels": interval_of(shares, seed),
    }


def _somewhere(hits: Sequence[Sequence[int]]) -> float:
    return float(any(any(row) for row in hits))


def _share(hits: Sequence[Sequence[int]], labels: int) -> float:
    return sum(map(sum, hits)) / labels


def _by_layer(trained: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Share of the questions that are decoded at the layer, at whichever token."""
    layers = trained[0]["layers"]
    return {
        str(layer): float(np.mean([any(row["hits"][i]) for row in trained]))
        for i, layer in enumerate(layers)
    }


def heat_map(trained: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Share of labels that name the bridge, layer × token, averaged over questions.

    Tokens are counted from the question's last one, which is 0; positions that fewer than half of
    the questions have are omitted. `share` is layers × places.
    """
    layers = trained[0]["layers"]
    sums: dict[int, np.ndarray] = {}
    counts: dict[int, int] = {}
    for row in trained:
        samples = row["labels"] / (len(layers) * len(row["positions"]))
        grid = np.array(row["hits"], dtype=float) / samples
        for column, position in enumerate(row["positions"]):
            place = position - row["last"]
            sums[place] = sums.get(place, np.zeros(len(layers))) + grid[:, column]
            counts[place] = counts.get(place, 0) + 1
    places = sorted(place for place, count in counts.items() if 2 * count >= len(trained))
    share = np.stack([sums[place] / counts[place] for place in places], axis=1)
    return {
        "layers": layers,
        "places": places,
        "questions": [counts[place] for place in places],
        "share": share.round(6).tolist(),
    }
