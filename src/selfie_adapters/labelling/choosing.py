"""Which of a vector's labels comes first, and whether it is shown; both are decided here alone.

A label is withheld where the adapter answers that its vector holds no concept (it is trained to
give one fixed label for those), and where its calibrated probability is below the threshold.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from selfie_adapters.adapters import Adapter
from selfie_adapters.labelling.confidence import Calibration
from selfie_adapters.labelling.label import Label
from selfie_adapters.words import plain

NO_CONCEPT = "no concept"
BELOW_THRESHOLD = "below threshold"
Withheld = Literal["no concept", "below threshold"]


@dataclass(frozen=True)
class Ranked:
    """A label among the others of its vector.

    rank: from 0, by likelihood. agreement: share of the vector's labels that are equal to it,
    itself included. margin: its log-probability minus the highest of an unequal label, nats; None
    if all are equal.
    """

    label: Label
    rank: int
    agreement: float
    margin: float | None


def rank_labels(labels: Sequence[Label]) -> list[Ranked]:
    """The labels of one vector, best first: by log-probability (`RANKING`), empty ones last.

    Of the labels of one vector the likeliest is right more often than the one with the highest
    gain, which may be any rare word (benchmarks/best_of_n.py). The gain tells vectors apart.
    Letter case and whitespace make no difference between labels.
    """
    counts = Counter(plain(label.text) for label in labels)
    ordered = sorted(labels, key=lambda label: (not label.text, -label.log_prob))
    ranked = []
    for rank, label in enumerate(ordered):
        own = plain(label.text)
        rivals = [other.log_prob for other in labels if plain(other.text) != own]
        margin = label.log_prob - max(rivals) if rivals else None
        ranked.append(Ranked(label, rank, counts[own] / len(labels), margin))
    return ranked


@dataclass(frozen=True)
class Judgement:
    """confidence: the probability that the label is right, None without a calibration and for the
    answer "no concept". withheld: why the label is not shown; None where it is."""

    confidence: float | None
    withheld: Withheld | None


def judge(
    label: Label, calibration: Calibration | None, no_concept: str | None, agreement: float = 1.0
) -> Judgement:
    """Whether to show `label`. no_concept: the adapter's label for it (`no_concept_label`)."""
    if is_no_concept(label.text, no_concept):
        return Judgement(None, NO_CONCEPT)
    if calibration is None:
        return Judgement(None, None)
    probability = calibration.of(label, agreement)
    return Judgement(probability, None if calibration.believes(probability) else BELOW_THRESHOLD)


def is_no_concept(text: str, no_concept: str | None) -> bool:
    """Whether a generated label is the answer "no concept", case and whitespace aside."""
    return no_concept is not None and plain(text) == plain(no_concept)


def no_concept_label(adapter: Adapter) -> str | None:
    """The label that the adapter was trained to give for vectors without a concept, if any."""
    return None if adapter.binding is None else adapter.binding.no_concept
