"""What is printed of the bridge protocol's results.json."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from selfie_adapters.evaluation.baselines import not_measured_line
from selfie_adapters.evaluation.bridge.targets import ANSWER, BRIDGE, ENTITY, WORDS
from selfie_adapters.evaluation.comparing import MeasureColumn, difference_tables
from selfie_adapters.evaluation.same_start import SAME_START
from selfie_adapters.evaluation.tables import Table, percent

_TITLES = {
    WORDS: "words of the question, each at its own last token (positive control)",
    ENTITY: "entity that is in the question, at its own tokens (positive control)",
    BRIDGE: "bridge entity",
    ANSWER: "answer",
}
_OTHERS = dict.fromkeys((ENTITY, BRIDGE, ANSWER), "entities of other questions") | {
    WORDS: "other words of the question"
}
_BRIDGE = {BRIDGE: MeasureColumn("bridge, points")}
_REST = {
    WORDS: MeasureColumn("words, points", 0),
    ENTITY: MeasureColumn("entity, points", 0),
    ANSWER: MeasureColumn("answer, points", 0),
}


def report(results: Mapping[str, Any]) -> Iterator[Table | str]:
    """A table of the bridge by condition, one of each role, the differences, and the order."""
    counts = ", ".join(f"{name} {count}" for name, count in results["counts"].items())
    yield f"questions: {counts}"
    yield from not_measured_line(results)
    lead = results["lead"]
    yield Table(
        f"bridge decoded, {results['counts']['read']} questions (95 % intervals)",
        ["condition", "somewhere, %", "of labels, %"],
        [
            [
                one["condition"],
                percent(one["decoded"], 1),
                percent(one["share_of_labels"], 2),
            ]
            for one in results["conditions"]
        ],
        bold={lead},
    )
    for role, title in _TITLES.items():
        found = [one for one in results["targets"] if one["target"] == role]
        if not found:
            continue
        keys, alike = {"named": "named, %", "base": "others, %"}, ""
        if any(one.get("same_start") for one in found):  # not in results of earlier releases
            keys |= {"same_start": f"{SAME_START}, %"}
            alike = f"; {SAME_START}: names that begin with the same letters"
        yield Table(
            f"{title}, {found[0]['questions']} questions",
            ["condition", *keys.values()],
            [[one["condition"], *(percent(one[key], 1) for key in keys)] for one in found],
            bold={lead},
            caption=f"others: {_OTHERS[role]}{alike}",
        )
    for columns in (_BRIDGE, _REST):
        yield from difference_tables(results["comparisons"], columns)
    parts = "; ".join(f"{name} {percent(share)} %" for name, share in results["by_part"].items())
    if parts:
        yield f"bridge named by {lead}: {parts}"
    order = ", ".join(f"{name} {count}" for name, count in results["order"].items())
    yield f"questions whose bridge and answer are both named: {order}"
