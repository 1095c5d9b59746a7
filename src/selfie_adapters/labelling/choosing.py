"""Which of a vector's labels to show first, and by how much it leads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from selfie_adapters.labelling.labeller import Label


@dataclass(frozen=True)
class Ranked:
    """A label among the others of its vector.

    rank: from 0, by gain. agreement: share of the vector's labels that say the same, itself
    counted. margin: its gain minus the best gain of a label that says something else, nats a
    token; None if all say the same.
    """

    label: Label
    rank: int
    agreement: float
    margin: float | None


def rank_labels(labels: Sequence[Label]) -> list[Ranked]:
    """The labels of one vector, best first: by gain over the zero vector, blank ones last.

    Two labels say the same if they differ in case and blanks only.
    """
    said = Counter(meaning(label.text) for label in labels)
    ordered = sorted(labels, key=lambda label: (not label.text, -label.gain))
    ranked = []
    for rank, label in enumerate(ordered):
        own = meaning(label.text)
        rivals = [other.gain for other in labels if meaning(other.text) != own]
        margin = label.gain - max(rivals) if rivals else None
        ranked.append(Ranked(label, rank, said[own] / len(labels), margin))
    return ranked


def meaning(text: str) -> str:
    """What counts when two labels are compared: case and blanks do not."""
    return " ".join(text.casefold().split())
