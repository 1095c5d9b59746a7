"""Which of a vector's labels to show first, and by how much it leads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from selfie_adapters.labelling.labeller import Label
from selfie_adapters.words import plain


@dataclass(frozen=True)
class Ranked:
    """A label among the others of its vector.

    rank: from 0, by gain. agreement: share of the vector's labels that are equal to it, itself
    included. margin: its gain minus the highest gain of an unequal label, nats per token; None if
    all are equal.
    """

    label: Label
    rank: int
    agreement: float
    margin: float | None


def rank_labels(labels: Sequence[Label]) -> list[Ranked]:
    """The labels of one vector, best first: by gain over the zero vector, empty ones last.

    Letter case and whitespace make no difference between labels.
    """
    counts = Counter(plain(label.text) for label in labels)
    ordered = sorted(labels, key=lambda label: (not label.text, -label.gain))
    ranked = []
    for rank, label in enumerate(ordered):
        own = plain(label.text)
        rivals = [other.gain for other in labels if plain(other.text) != own]
        margin = label.gain - max(rivals) if rivals else None
        ranked.append(Ranked(label, rank, counts[own] / len(labels), margin))
    return ranked
