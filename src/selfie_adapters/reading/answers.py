"""What a state of a prompt is labelled: one greedy label, or its concepts one after another."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from torch import Tensor

from selfie_adapters.adapters import Adapter
from selfie_adapters.adapters.specialists import Place
from selfie_adapters.config.reading import ReadSettings
from selfie_adapters.config.shared import Sampling
from selfie_adapters.dataset.captured import NAME
from selfie_adapters.files.number_types import Proportion
from selfie_adapters.labelling.choosing import Judgement, Withheld, judge, no_concept_label
from selfie_adapters.labelling.confidence import Confidence
from selfie_adapters.labelling.decomposition.concepts import (
    SAMPLES,
    TEMPERATURE,
    Concept,
    Decomposer,
)
from selfie_adapters.labelling.decomposition.reconstruction import Reconstructor
from selfie_adapters.labelling.label import Label
from selfie_adapters.labelling.labeller import Labeller
from selfie_adapters.model import FrozenModel
from selfie_adapters.reading.means import ReadingMeans
from selfie_adapters.reading.plan import ReadingPlan


@dataclass(frozen=True)
class FurtherConcept:
    """A concept of a state after its first one. explained: share of the state's squared length that
    its label explains. withheld: why it is not shown; None where it is."""

    label: str
    explained: Proportion
    withheld: Withheld | None = None


@dataclass(frozen=True)
class Answer:
    """The label of a state and whether it is shown. explained, further: where concepts are read;
    else None and none."""

    label: Label
    verdict: Judgement
    explained: float | None = None
    further: tuple[FurtherConcept, ...] = ()


@dataclass(frozen=True)
class Answering:
    """How the states of a prompt of `tokens` tokens are labelled.

    confidence: decides what is shown. decomposer: reads the concepts of each state; None: one
    greedy label each. kinds: the kinds of position that the means tell apart, none without means;
    they decide where a label's own states are captured, for the decomposer.
    """

    labeller: Labeller
    tokens: int
    confidence: Confidence | None
    max_new_tokens: int
    batch_size: int | None = None
    decomposer: Decomposer | None = None
    kinds: Collection[str | None] = ()

    def of(
        self, vectors: Tensor, cells: Sequence[tuple[int, int]], seeded_by: str = "cell"
    ) -> list[Answer]:
        """Answers for vectors [n, d_model] in the place of `cells` (layer, position).

        seeded_by: what the seeds of sampled candidates are made of, with layer and position.
        """
        adapter = self.labeller.adapter
        places = [place_of(adapter, *cell, self.tokens, self.kinds) for cell in cells]
        if self.decomposer is None:
            found = self.labeller.label(
                vectors,
                max_new_tokens=self.max_new_tokens,
                batch_size=self.batch_size,
                places=places,
            )
            return [
                Answer(label, self._judged(cell, label))
                for (label,), cell in zip(found, cells, strict=True)
            ]
        several = self.decomposer.concepts(
            vectors,
            lambda i, label: self._judged(cells[i], label),
            [(seeded_by, *cell) for cell in cells],
            places,
        )
        return [_answer(concepts) for concepts in several]

    def _judged(self, cell: tuple[int, int], label: Label) -> Judgement:
        here = None if self.confidence is None else self.confidence.at_token(*cell, self.tokens)
        return judge(label, here, no_concept_label(self.labeller.adapter))


def _answer(concepts: Sequence[Concept]) -> Answer:
    first, *others = concepts
    further = [
        FurtherConcept(one.label.text, round(one.explained, 4), one.verdict.withheld)
        for one in others
    ]
    return Answer(first.label, first.verdict, round(first.explained, 4), tuple(further))


def place_of(
    adapter: Adapter,
    layer: int,
    position: int,
    tokens: int,
    kinds: Collection[str | None] = (),
) -> Place:
    """Block and kind of a token, at `position` of `tokens`, as far as the adapter has specialists
    (`Labeller.label`) or the means that are subtracted tell `kinds` apart."""
    known = {kind for number, kind in adapter.specialists if number == layer} | set(kinds)
    for kind in (str(position - tokens), str(position)):
        if kind in known:
            return layer, kind
    return layer, NAME if NAME in known or not kinds else None


def decomposer_of(
    labeller: Labeller, settings: ReadSettings, source: FrozenModel, mean: str | None
) -> Decomposer | None:
    """What reads the concepts of cells, if `settings` ask for it.

    source: the model that is read. mean: the file of means that are subtracted. Raises ConfigError
    where there is none.
    """
    if settings.concepts is None:
        return None
    return Decomposer(
        labeller,
        Reconstructor(source, labeller.adapter, mean),
        settings.concepts,
        Sampling(max_new_tokens=settings.max_new_tokens),
        seed=settings.seed,
        samples=SAMPLES if settings.best_of is None else settings.best_of - 1,
        temperature=settings.temperature or TEMPERATURE,
    )


def answering_of(
    labeller: Labeller,
    plan: ReadingPlan,
    mean: ReadingMeans | None,
    confidence: Confidence | None,
    max_new_tokens: int,
    batch_size: int | None = None,
    decomposer: Decomposer | None = None,
) -> Answering:
    """How the cells of a plan are labelled, and with them its controls (`read_cells`)."""
    kinds = () if mean is None else {kind for means in mean.by_layer for kind in means}
    return Answering(
        labeller,
        len(plan.tokens),
        confidence,
        max_new_tokens,
        batch_size,
        decomposer,
        () if decomposer is None else kinds,
    )
