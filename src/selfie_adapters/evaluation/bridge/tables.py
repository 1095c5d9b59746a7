"""What is printed of the bridge protocol's results.json."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from selfie_adapters.evaluation.bridge.results import BASE
from selfie_adapters.evaluation.bridge.targets import ANSWER, BRIDGE, ENTITY, WORDS
from selfie_adapters.evaluation.comparing import p_text
from selfie_adapters.evaluation.tables import Table, percent

_TITLES = {
    WORDS: "words of the question, each at its own last token (positive control)",
    ENTITY: "entity that is in the question, at its own tokens (positive control)",
    BRIDGE: "bridge entity",
    ANSWER: "answer",
}
_OTHERS = dict.fromkeys((ENTITY, BRIDGE, ANSWER), BASE) | {WORDS: "other words of the question"}


def report(results: Mapping[str, Any]) -> Iterator[Table | str]:
    """A table of the bridge by condition, one of each role against its base rate, and the order."""
    counts = ", ".join(f"{name} {count}" for name, count in results["counts"].items())
    yield f"questions: {counts}"
    lead = results["lead"]
    compared = {(one["measure"], one["second"]): one for one in results["comparisons"]}
    yield Table(
        f"bridge decoded, {results['counts']['read']} questions (95 % intervals)",
        ["condition", "somewhere, %", "of labels, %", f"{lead} minus it, points", "Holm"],
        [
            [
                one["condition"],
                percent(one["decoded"], 1),
                percent(one["share_of_labels"], 2),
                *_difference(compared.get((BRIDGE, one["condition"]))),
            ]
            for one in results["conditions"]
        ],
        bold={lead},
    )
    for role, title in _TITLES.items():
        found = [one for one in results["targets"] if one["target"] == role]
        if not found:
            continue
        p = p_text(compared[role, BASE])
        yield Table(
            f"{title}, {found[0]['questions']} questions",
            ["condition", "named, %", "others, %", "difference, points"],
            [
                [
                    one["condition"],
                    *(percent(one[key], 1) for key in ("named", "base", "minus_base")),
                ]
                for one in found
            ],
            bold={lead},
            caption=f"others: {_OTHERS[role]}; {lead} minus them: {p}",
        )
    parts = "; ".join(f"{name} {percent(share)} %" for name, share in results["by_part"].items())
    if parts:
        yield f"bridge named by {lead}: {parts}"
    order = ", ".join(f"{name} {count}" for name, count in results["order"].items())
    yield f"questions whose bridge and answer are both named: {order}"


def _difference(compared: Mapping[str, Any] | None) -> list[str]:
    if compared is None:
        return ["–", ""]
    return [percent(compared["difference"], 1), p_text(compared)]
