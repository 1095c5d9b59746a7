"""Random directions, labelled in the place of a prompt's states: what gains have to beat."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from selfie_adapters.dataset.controls import random_vectors
from selfie_adapters.labelling.confidence import Confidence
from selfie_adapters.labelling.decomposition.concepts import Decomposer
from selfie_adapters.labelling.labeller import Labeller
from selfie_adapters.labelling.summary import gain_sentence
from selfie_adapters.model import FrozenModel
from selfie_adapters.reading.answers import answering_of
from selfie_adapters.reading.calibration import MAX_NEW_TOKENS
from selfie_adapters.reading.means import ReadingMeans
from selfie_adapters.reading.plan import ReadingPlan
from selfie_adapters.reading.read import Reading, read_states
from selfie_adapters.statistics import share_difference, wilson

_DIRECTIONS = 32  # if none of them is shown, the interval of the share ends at 11 %


@dataclass(frozen=True)
class RandomControl:
    """Random directions with the norms of some of a reading's states.

    gains: of each one's label, nats per token. shown: how many of the labels would be shown.
    """

    gains: tuple[float, ...]
    shown: int


def random_control(
    labeller: Labeller,
    plan: ReadingPlan,
    mean: ReadingMeans | None = None,
    confidence: Confidence | None = None,
    max_new_tokens: int = MAX_NEW_TOKENS,
    decomposer: Decomposer | None = None,
    source: FrozenModel | None = None,
) -> RandomControl:
    """Labels of up to 32 random directions, each in the place of one of the plan's cells.

    The cells are spread evenly over the plan, and the directions are labelled like them; of several
    concepts the first one is taken. Other arguments, and what is raised: as in `read_cells`.
    """
    cells = plan.cells()
    count = min(_DIRECTIONS, len(cells))
    picked = [cells[i * len(cells) // count] for i in range(count)]
    vectors = {}
    for positions, states in read_states(source or labeller.model, plan):
        centered = states if mean is None else states - mean.at(positions, len(plan.tokens))
        for layer, position in picked:
            if position in positions:
                row, column = plan.layers.index(layer), positions.index(position)
                vectors[layer, position] = centered[row, column]
    first = None if decomposer is None else replace(decomposer, count=1)
    answering = answering_of(labeller, plan, mean, confidence, max_new_tokens, decomposer=first)
    directions = random_vectors(torch.stack([vectors[cell] for cell in picked]))
    answers = answering.of(directions, picked, "random")
    return RandomControl(
        tuple(round(answer.label.gain, 4) for answer in answers),
        sum(answer.verdict.withheld is None for answer in answers),
    )


def control_sentence(reading: Reading) -> str | None:
    """What the control means for a reading; None where it was not measured.

    Where labels can be withheld, the shares of labels shown are compared: a text has many tokens
    without a concept, whose answer "no concept" gains little, so that means of gains say nothing
    about the labels that are shown. Otherwise the gains are compared.
    """
    control, cells = reading.control, reading.cells
    if control is None or not control.gains:
        return None
    if not any(cell.confidence is not None or cell.withheld for cell in cells):
        return gain_sentence("Cells", [cell.gain for cell in cells], control.gains)
    shown, drawn = sum(cell.withheld is None for cell in cells), len(control.gains)
    found = share_difference(wilson(shown, len(cells)), wilson(control.shown, drawn))
    low, high = (f"{100 * end:.0f}" for end in (found.low, found.high))
    return (
        f"{shown} of {len(cells)} cells show a label, and {control.shown} of {drawn} random "
        f"directions, a difference of {100 * found.mean:.0f} points [{low}, {high}] (95 % "
        "interval): "
        + (
            "the labels shown depend on the text."
            if found.above_zero
            else "this does not show that the labels depend on the text."
        )
    )
