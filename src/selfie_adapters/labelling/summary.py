"""A labelling run in sentences: how many labels are equal or withheld, what the controls mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from selfie_adapters.labelling.rows import LabelRow
from selfie_adapters.labelling.run_record import read_controls
from selfie_adapters.statistics import bootstrap_difference

_FEWEST_COMPARED = 4  # vectors of either kind below which no interval is computed


@dataclass
class LabelCounts:
    """Counts over vectors, of each its leading label. known: vectors with a given label; equal and
    different: of those whose label is shown."""

    vectors: int = 0
    known: int = 0
    equal: int = 0
    different: int = 0
    no_concept: int = 0
    below: int = 0

    def add(self, row: LabelRow) -> None:
        self.vectors += 1
        self.no_concept += row.withheld == "no concept"
        self.below += row.withheld == "below threshold"
        if isinstance(row.equal, bool):
            self.known += 1
            self.equal += row.equal and not isinstance(row.withheld, str)
            self.different += not row.equal and not isinstance(row.withheld, str)

    def sentence(self) -> str | None:
        """How many labels are equal to a given one, and how many are withheld."""
        withheld = [f"{self.no_concept} no concept"] if self.no_concept else []
        withheld += [f"{self.below} below threshold"] if self.below else []
        silent = f"{self.no_concept + self.below} withheld ({', '.join(withheld)})"
        parts = [silent] if withheld else []
        if self.known:
            share = f"{self.equal / self.known:.0%}"
            parts = [f"{self.equal} equal ({share})", f"{self.different} different", *parts]
            return f"Of {self.known} labels with a given one: {', '.join(parts)}."
        return f"Of {self.vectors} labels: {silent}." if withheld else None

    def silence(self) -> str | None:
        """How many vectors without a concept have no label; None if there are none."""
        if not self.vectors:
            return None
        silent = self.no_concept + self.below
        return f"Of {self.vectors} vectors without a concept: {silent} silent."


def controls_sentence(folder: Path) -> str | None:
    """What the controls mean for a run; None where they were not measured."""
    gains = {row.kind: row.gains for row in read_controls(folder) or []}
    own, random = gains.get("vectors of this run", ()), gains.get("random", ())
    if not own or not random:
        return None
    return gain_sentence("Vectors of this run", own, random)


def gain_sentence(what: str, own: Sequence[float], random: Sequence[float]) -> str:
    """Whether labels depend on their vectors, by the gains of these and of random directions.

    what: the vectors, as the sentence's subject. own, random: nats per token, one of each vector.
    """
    if min(len(own), len(random)) < _FEWEST_COMPARED:
        return f"Too few vectors ({len(own)}) to compare their gains with random directions."
    # Not paired: a random direction shares nothing but its norm with the vector it was made from.
    found = bootstrap_difference(own, random)
    counts = f"{len(own)} each" if len(own) == len(random) else f"{len(own)} and {len(random)}"
    return (
        f"{what} gain {fmean(own):.2f} nats per token, random directions {fmean(random):.2f}, a "
        f"difference of {found} ({counts}, 95 % interval): "
        + (
            "the labels depend on their vectors."
            if found.above_zero
            else "this does not show that the labels depend on their vectors."
        )
    )
