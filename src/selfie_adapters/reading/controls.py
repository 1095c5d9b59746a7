"""Random directions, labelled in the place of a prompt's states: what gains have to beat."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from selfie_adapters.dataset.controls import random_vectors
from selfie_adapters.labelling.choosing import judge, no_concept_label
from selfie_adapters.labelling.confidence import Confidence
from selfie_adapters.labelling.controls import CONTROLS
from selfie_adapters.labelling.labeller import Labeller
from selfie_adapters.labelling.summary import gain_sentence
from selfie_adapters.reading.means import ReadingMeans
from selfie_adapters.reading.plan import ReadingPlan
from selfie_adapters.reading.read import MAX_NEW_TOKENS, Reading, place_of, read_states


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
) -> RandomControl:
    """Labels of up to 16 random directions, each in the place of one of the plan's cells.

    The cells are spread evenly over the plan. mean, confidence, max_new_tokens: as in `read_cells`.
    """
    cells = plan.cells()
    picked = cells[:: max(1, len(cells) // CONTROLS)][:CONTROLS]
    vectors = {}
    for positions, states in read_states(labeller.model, plan):
        centered = states if mean is None else states - mean.at(positions, len(plan.tokens))
        for layer, position in picked:
            if position in positions:
                row, column = plan.layers.index(layer), positions.index(position)
                vectors[layer, position] = centered[row, column]
    answers = labeller.label(
        random_vectors(torch.stack([vectors[cell] for cell in picked])),
        max_new_tokens=max_new_tokens,
        places=[place_of(labeller.adapter, *cell, len(plan.tokens)) for cell in picked],
    )
    labels = [answer for (answer,) in answers]
    silence = no_concept_label(labeller.adapter)
    verdicts = [
        judge(
            label,
            None if confidence is None else confidence.at_token(*cell, len(plan.tokens)),
            silence,
        )
        for label, cell in zip(labels, picked, strict=True)
    ]
    return RandomControl(
        tuple(round(label.gain, 4) for label in labels),
        sum(verdict.withheld is None for verdict in verdicts),
    )


def control_sentences(reading: Reading) -> list[str]:
    """What the control means for a reading; none where it was not measured."""
    control = reading.control
    if control is None or not control.gains:
        return []
    withholds = any(cell.confidence is not None or cell.withheld for cell in reading.cells)
    sentences = [gain_sentence("Cells", [cell.gain for cell in reading.cells], control.gains)]
    if withholds:
        shown = sum(cell.withheld is None for cell in reading.cells)
        sentences.append(
            f"Labels shown: {shown} of {len(reading.cells)} cells, {control.shown} of "
            f"{len(control.gains)} random directions."
        )
    return sentences
