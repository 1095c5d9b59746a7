"""Labels of vectors whose topics are known, judged and counted, condition by condition.

A label is right (a name or synonym of its topic), related (a neighbor of it in WordNet), wrong, or
states that there is no concept. Shares have Wilson intervals, and conditions are compared on the
same vectors. A topic that has several vectors counts as one: the intervals are over topics.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from selfie_adapters.evaluation.comparing import adjusted
from selfie_adapters.evaluation.naming.judging import is_exact, judge, shares_first_letter
from selfie_adapters.evaluation.outcomes import AdapterOutcomes, by_adapter
from selfie_adapters.evaluation.recipes import Subject
from selfie_adapters.labelling.choosing import is_no_concept
from selfie_adapters.sources.topics.topic import Topic
from selfie_adapters.statistics import Interval, unit_weights, wilson

Verdict = Literal["right", "related", "wrong", "no concept"]
Measure = Literal["exact", "right", "right or related", "related", "wrong", "no concept", "shown"]
MEASURES: tuple[Measure, ...] = (
    "exact",
    "right",
    "right or related",
    "related",
    "wrong",
    "no concept",
    "shown",
)
_COUNTED: dict[Measure, tuple[Verdict, ...]] = {
    "right": ("right",),
    "right or related": ("right", "related"),
    "related": ("related",),
    "wrong": ("wrong",),
    "no concept": ("no concept",),
}
COMPARED: tuple[Measure, ...] = ("exact", "right", "right or related")
"""What conditions are compared by."""
ADAPTER = "adapter"
"""The condition of the one adapter that is measured; of several each has its name."""
_OWN = ""


@dataclass(frozen=True)
class Named:
    """One label for each of some vectors under one condition, judged against their topics.

    topics, labels, verdicts, exact: one per vector. exact: the label is a name or synonym to the
    letter, case aside. first_letter: it begins with the letter that the topic's name begins with.
    shown: it is not withheld (`labelling.choosing`).
    """

    condition: str
    meaning: str
    topics: Sequence[Topic]
    labels: Sequence[str]
    verdicts: Sequence[Verdict]
    exact: Sequence[bool]
    first_letter: Sequence[bool]
    shown: Sequence[bool]

    @classmethod
    def judged(
        cls,
        condition: str,
        meaning: str,
        labels: Sequence[str],
        topics: Sequence[Topic],
        no_concept: str | None = None,
        shown: Sequence[bool] | None = None,
    ) -> Named:
        """Judge labels of the vectors that `topics` are the topics of, one per vector.

        no_concept: the label that states that there is none. shown: None: all but those are.
        """
        verdicts: list[Verdict] = [
            "no concept" if is_no_concept(label, no_concept) else judge(label, topic)
            for label, topic in zip(labels, topics, strict=True)
        ]
        pairs = list(zip(labels, topics, verdicts, strict=True))
        exact = [v != "no concept" and is_exact(label, topic) for label, topic, v in pairs]
        letter = [shares_first_letter(label, topic) for label, topic, _ in pairs]
        if shown is None:
            shown = [verdict != "no concept" for verdict in verdicts]
        return cls(condition, meaning, topics, labels, verdicts, exact, letter, shown)

    @classmethod
    def pooled(cls, parts: Sequence[Named]) -> Named:
        """The same condition on the vectors of several sections."""

        def joined(field: str) -> list[Any]:
            return [one for part in parts for one in getattr(part, field)]

        fields = ("topics", "labels", "verdicts", "exact", "first_letter", "shown")
        return cls(parts[0].condition, parts[0].meaning, *map(joined, fields))

    def outcomes(self, measure: Measure) -> np.ndarray:
        """[vectors], 1.0 where the measure counts the label."""
        if measure in ("exact", "shown"):
            return np.array(getattr(self, measure), dtype=np.float64)
        counted = _COUNTED[measure]
        return np.array([verdict in counted for verdict in self.verdicts], dtype=np.float64)

    @property
    def units(self) -> np.ndarray:
        """[vectors], the topic of each; vectors of one topic are not independent."""
        return np.array([topic.title for topic in self.topics])

    def share(self, measure: Measure) -> Interval:
        """Share of topics, each the mean over its vectors, with its Wilson interval."""
        return self._share(self.outcomes(measure), np.ones(len(self.labels)))

    def _share(self, outcomes: np.ndarray, among: np.ndarray) -> Interval:
        weights = unit_weights(self.units) * among
        return wilson(float((weights * outcomes).sum()), float(weights.sum()))

    def summary(self) -> dict[str, Any]:
        """What results.json holds of a condition. Shares of none are null."""
        wrong, shown = self.outcomes("wrong"), self.outcomes("shown")
        conditional = {
            "same first letter, of the wrong": (np.array(self.first_letter), wrong),
            "right or related, of the shown": (self.outcomes("right or related"), shown),
        }
        return {
            "condition": self.condition,
            "meaning": self.meaning,
            "vectors": len(self.labels),
            "topics": len(set(self.units.tolist())),
            "different_labels": len(set(self.labels)),
            "share": {measure: asdict(self.share(measure)) for measure in MEASURES}
            | {
                name: asdict(self._share(outcomes, among)) if among.any() else None
                for name, (outcomes, among) in conditional.items()
            },
        }

    def rows(self) -> list[dict[str, Any]]:
        """One row per vector: the name that is given, the label that was generated, the verdict."""
        return [
            {
                "condition": self.condition,
                "name": topic.title,
                "generated": label,
                "verdict": verdict,
                "exact": exact,
                "same_first_letter": letter,
                "shown": shown,
            }
            for topic, label, verdict, exact, letter, shown in zip(
                self.topics,
                self.labels,
                self.verdicts,
                self.exact,
                self.first_letter,
                self.shown,
                strict=True,
            )
        ]


def by_subject(
    named: Sequence[Named], adapters: Sequence[str], of: Sequence[Subject]
) -> dict[str, Any]:
    """Adapters and recipes compared with their controls and each other, by each of `COMPARED`.

    named: all conditions, those of `adapters` under their names (`outcomes.by_adapter`). Of recipes
    also the mean of each measure over seeds and topics (`share`). p values are not adjusted yet.
    """
    found = ((one.condition, {m: one.outcomes(m) for m in MEASURES}) for one in named)
    values = by_adapter(found, adapters, _OWN)
    results = AdapterOutcomes(values, _OWN, named[0].units, measures=COMPARED).by_subject(of)
    for recipe in results["recipes"]:
        recipe["share"] = recipe.pop("mean")
    return results


def comparisons(first: Named, others: Sequence[Named]) -> list[dict[str, Any]]:
    """`first` minus each of the others, by each of `COMPARED`, with adjusted p values."""
    name = first.condition
    found = by_subject([first, *others], [name], [Subject(name, (name,))])
    return adjusted(found["comparisons"])
