"""From labels at growing strengths to shares, the strengths at which labels follow, and tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from selfie_adapters.evaluation.comparing import adjusted, comparison, paired
from selfie_adapters.evaluation.naming.judging import judge
from selfie_adapters.labelling.choosing import is_no_concept
from selfie_adapters.sources.topics.topic import Topic
from selfie_adapters.statistics import wilson

CONCEPT, STYLE, RANDOM = "concept", "style", "random"


def names(labels: Sequence[str], topics: Sequence[Topic]) -> list[bool]:
    """Which labels name the concept of their pair."""
    return [judge(label, topic) == "right" for label, topic in zip(labels, topics, strict=True)]


@dataclass(frozen=True)
class Outcomes:
    """What the labels of all pairs name under one direction at one strength: one value per pair.

    kept: the first concept. followed: the second one; where another direction is added, that is
    how often it is named by chance. nothing: that there is no concept; None for an adapter without
    a label for it.
    """

    kept: list[bool]
    followed: list[bool]
    nothing: list[bool] | None

    @classmethod
    def of(
        cls,
        labels: Sequence[str],
        first: Sequence[Topic],
        second: Sequence[Topic],
        no_concept: str | None,
    ) -> Outcomes:
        nothing = [is_no_concept(label, no_concept) for label in labels]
        return cls(
            names(labels, first), names(labels, second), None if no_concept is None else nothing
        )

    def shares(self) -> dict[str, Any]:
        """Wilson intervals of the shares, as JSON values."""
        return {
            key: None if found is None else asdict(wilson(sum(found), len(found)))
            for key, found in vars(self).items()
        }


def smallest(strengths: Sequence[float], reached: Sequence[Sequence[bool]]) -> list[float | None]:
    """Per pair the smallest strength at which it is reached, None where at no strength.

    strengths: ascending; reached: [strengths][pairs].
    """
    by_pair = zip(*reached, strict=True)
    return [
        next((strength for strength, one in zip(strengths, its, strict=True) if one), None)
        for its in by_pair
    ]


def median(found: Sequence[float | None]) -> float | None:
    """The smallest strength by which at least half of the pairs are reached, None where fewer than
    half ever are."""
    ordered = sorted(found, key=lambda one: float("inf") if one is None else one)
    return ordered[(len(ordered) - 1) // 2] if ordered else None


def thresholds(
    strengths: Sequence[float],
    outcomes: Mapping[str, Sequence[Outcomes]],
    among: Sequence[bool],
) -> list[dict[str, Any]]:
    """When the label follows the concept, and when it is lost under each direction.

    outcomes: by direction, one per strength. among: the pairs that are counted. Each entry has the
    share of those pairs that are reached at any strength (None of no pairs), the median strength,
    and the strength of every pair, None where it is not reached.
    """
    kinds = [("follows", CONCEPT, [one.followed for one in outcomes[CONCEPT]])]
    kinds += [
        ("lost", direction, [[not kept for kept in one.kept] for one in its])
        for direction, its in outcomes.items()
    ]
    entries = []
    for outcome, direction, reached in kinds:
        every = smallest(strengths, reached)
        counted = [one for one, counts in zip(every, among, strict=True) if counts]
        ever = sum(one is not None for one in counted)
        entries.append(
            {
                "outcome": outcome,
                "direction": direction,
                "reached": asdict(wilson(ever, len(counted))) if counted else None,
                "median": median(counted),
                "by_pair": every,
            }
        )
    return entries


def comparisons(
    strengths: Sequence[float], outcomes: Mapping[str, Sequence[Outcomes]]
) -> list[dict[str, Any]]:
    """How much more often the first concept is kept under a random direction than under another
    one of the same strength, paired; p values are adjusted over all of them."""
    return adjusted(
        comparison(RANDOM, direction, "kept", paired(noise.kept, one.kept), strength=strength)
        for direction, its in outcomes.items()
        if direction != RANDOM
        for strength, one, noise in zip(strengths, its, outcomes[RANDOM], strict=True)
    )
