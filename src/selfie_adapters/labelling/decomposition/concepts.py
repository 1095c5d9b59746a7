"""Several concepts of one vector: its label, then the label of what that one does not explain.

A vector's loudest concept hides the others: of two nouns mixed 3 to 1 an adapter names the second
hardly ever. So the part of the vector that the first label explains (reconstruction.py) is removed,
and the rest is read again, until a label is withheld. Each time one greedy label and a few sampled
ones are candidates; the one that explains most is taken: that share separates right labels from
wrong ones better than gain does (docs/completeness.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from selfie_adapters.adapters.specialists import Place
from selfie_adapters.config.shared import Sampling
from selfie_adapters.labelling.choosing import (
    BELOW_THRESHOLD,
    NO_CONCEPT,
    Judgement,
    is_no_concept,
    no_concept_label,
)
from selfie_adapters.labelling.decomposition.reconstruction import (
    Reconstructor,
    explained,
    without,
)
from selfie_adapters.labelling.label import Label
from selfie_adapters.labelling.labeller import Labeller
from selfie_adapters.words import plain

SAMPLES = 8
TEMPERATURE = 0.7
LEAST_EXPLAINED = 0.25
"""Share of a rest that its label must explain to be shown as a further concept. The confidence
is fitted on labels of complete vectors and does not decide here."""


@dataclass(frozen=True)
class Concept:
    """One of a vector's labels. explained: share of the vector's squared length that it explains
    and that no concept before it does. of_rest: share of what was left before it."""

    label: Label
    explained: float
    of_rest: float
    verdict: Judgement


@dataclass(frozen=True)
class Decomposer:
    """Reads the concepts of vectors, up to `count` each.

    sampling, scale, seed, batch_size: of the greedy label, as in `Labeller.label`. samples,
    temperature: of the other candidates.
    """

    labeller: Labeller
    reconstructor: Reconstructor
    count: int
    sampling: Sampling
    scale: float = 1.0
    seed: int = 0
    batch_size: int | None = None
    samples: int = SAMPLES
    temperature: float = TEMPERATURE

    def concepts(
        self,
        vectors: Tensor,
        judged: Callable[[int, Label], Judgement],
        names: Sequence[tuple[float | str, ...]],
        places: Sequence[Place],
    ) -> list[list[Concept]]:
        """The concepts of each vector [n, d_model], the loudest first.

        judged: called with a vector's number and a label, returns whether it is shown. names: what
        seeds are made of, one per vector. places: block and kind of position of each. The last
        concept of a vector with fewer than `count` is withheld: nothing is read after it, but for a
        first one that is below the threshold and explains enough. Raises what `Reconstructor.spans`
        raises.
        """
        found: list[list[Concept]] = [[] for _ in names]
        lengths = vectors.double().square().sum(1)
        rests = vectors.clone()
        going = list(range(len(names)))
        for number in range(1, self.count + 1):
            if not going:
                break
            its = [places[i] for i in going]
            several = self._candidates(
                rests[going], [(*names[i], f"concept {number}") for i in going], its
            )
            best = self._best(rests[going], several, its)
            still = []
            for i, (label, span) in zip(going, best, strict=True):
                share = explained(rests[i], span)
                verdict = judged(i, label)
                # Where no confidence was fitted, what a label explains decides about the first too.
                if verdict.withheld != NO_CONCEPT and (number > 1 or verdict.confidence is None):
                    again = any(plain(label.text) == plain(one.label.text) for one in found[i])
                    doubted = again or share < LEAST_EXPLAINED
                    verdict = Judgement(verdict.confidence, BELOW_THRESHOLD if doubted else None)
                left = float(rests[i].double().square().sum() / lengths[i]) if lengths[i] else 0.0
                found[i].append(Concept(label, share * left, share, verdict))
                clear = number == 1 and share >= LEAST_EXPLAINED
                if verdict.withheld is None or (clear and verdict.withheld != NO_CONCEPT):
                    rests[i] = without(rests[i], span)
                    still.append(i)
            going = still
        return found

    def _candidates(
        self, vectors: Tensor, names: Sequence[tuple[float | str, ...]], places: Sequence[Place]
    ) -> list[list[Label]]:
        """A greedy label of each vector and sampled ones; of "no concept" the greedy one alone."""
        common = {"seed": self.seed, "names": names, "places": places}
        common["batch_size"] = self.batch_size
        warm = replace(self.sampling, temperature=self.temperature)
        greedy = self.labeller.label(vectors, (self.scale,), 1, self.sampling, **common)
        sampled = [[] for _ in greedy]
        if self.samples:
            sampled = self.labeller.label(vectors, (self.scale,), self.samples, warm, **common)
        nothing = no_concept_label(self.labeller.adapter)
        return [
            [first]
            if is_no_concept(first.text, nothing)
            else [first, *(one for one in others if not is_no_concept(one.text, nothing))]
            for (first,), others in zip(greedy, sampled, strict=True)
        ]

    def _best(
        self, vectors: Tensor, several: Sequence[Sequence[Label]], places: Sequence[Place]
    ) -> list[tuple[Label, Tensor]]:
        """Of each vector's candidates the one that explains most, the first of equal ones."""
        spans: dict[tuple[Place, str], Tensor] = {}
        for place in dict.fromkeys(places):
            rows = [i for i, one in enumerate(places) if one == place]
            texts = list(dict.fromkeys(label.text for i in rows for label in several[i]))
            found = self.reconstructor.spans(texts, place)
            spans |= {(place, text): span for text, span in zip(texts, found, strict=True)}
        best = []
        for vector, labels, place in zip(vectors, several, places, strict=True):
            shares = [explained(vector, spans[place, label.text]) for label in labels]
            label = labels[shares.index(max(shares))]
            best.append((label, spans[place, label.text]))
        return best
