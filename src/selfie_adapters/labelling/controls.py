"""Vectors that mean nothing, labelled like the others: the baseline for the run's scores.

zero       the adapter's bias alone
random     Gaussian directions with the norms of some of the run's vectors
shuffled   the labels of some of the run's vectors, scored under another one of them
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from selfie_adapters.adapters.specialists import Place
from selfie_adapters.dataset.controls import random_vectors, shuffle_order
from selfie_adapters.labelling.choosing import judge, no_concept_label, rank_labels
from selfie_adapters.labelling.confidence import Calibration
from selfie_adapters.labelling.label import Label
from selfie_adapters.labelling.labeller import Labeller

CONTROLS = 16
"""Vectors of each kind in a labelling run."""

Names = Sequence[tuple[float | str, ...]]
"""What the seeds of sampled labels are made of, for each vector."""
LabelSampler = Callable[[Tensor, Names, Sequence[Place] | None], list[list[Label]]]
"""`ShardWorker.sampled`."""


@dataclass(frozen=True)
class ControlScores:
    """How one kind of vectors scored: means over `vectors` of each one's best label.

    gain: over the zero vector, nats per token; gains: each vector's, empty in files of earlier
    releases. confidence: probability, None where no label has one. concepts: how many would have
    been shown; None where nothing is ever withheld. example: one of the labels.
    """

    kind: str
    vectors: int
    gain: float
    confidence: float | None
    concepts: int | None
    example: str
    gains: tuple[float, ...] = ()


def control_scores(
    labeller: Labeller,
    sampled: LabelSampler,
    seed: int,
    calibrations: Sequence[Calibration | None],
    vectors: Tensor,
    places: Sequence[Place] | None = None,
) -> list[ControlScores]:
    """Scores of `vectors` ([n, d_model], some of the run's) and of the controls made from them.

    Each is labelled as the run's vectors are (`sampled`), and its best label taken. calibrations:
    that of each vector's place; places: see `Labeller.at`. Both hold for the control made from it.
    Shuffling is omitted where there is one vector only.
    """
    no_concept = no_concept_label(labeller.adapter)

    def best(kind: str, some: Tensor) -> list[tuple[Label, float]]:
        names = [(kind, i) for i in range(len(some))]
        several = sampled(some, names, places and places[: len(some)])
        ranked = [rank_labels(labels)[0] for labels in several]
        return [(one.label, one.agreement) for one in ranked]

    real = best("run", vectors)
    kinds = [
        ("vectors of this run", real),
        ("zero", best("zero", torch.zeros_like(vectors[:1]))),
        ("random", best("random", random_vectors(vectors, seed))),
    ]
    if len(vectors) > 1:
        order = shuffle_order(len(vectors), seed)
        elsewhere = places and [places[i] for i in order.tolist()]
        moved = labeller.rescore([label for label, _ in real], vectors[order], elsewhere)
        shares = [agreement for _, agreement in real]
        kinds.append(("shuffled", list(zip(moved, shares, strict=True))))
    scores = [_summary(kind, labels, calibrations, no_concept) for kind, labels in kinds]
    return [one for one in scores if one is not None]


def _summary(
    kind: str,
    labels: list[tuple[Label, float]],
    calibrations: Sequence[Calibration | None],
    no_concept: str | None,
) -> ControlScores | None:
    """None where the model's output is not finite for any of them; such labels do not count."""
    finite = [
        (label, agreement, calibration)
        for (label, agreement), calibration in zip(labels, calibrations, strict=False)
        if math.isfinite(label.gain)
    ]
    if not finite:
        return None
    verdicts = [
        judge(label, calibration, no_concept, agreement) for label, agreement, calibration in finite
    ]
    known = [one.confidence for one in verdicts if one.confidence is not None]
    withholds = no_concept is not None or calibrations[0] is not None
    gains = [label.gain for label, _, _ in finite]
    return ControlScores(
        kind,
        len(finite),
        sum(gains) / len(gains),
        sum(known) / len(known) if known else None,
        sum(one.withheld is None for one in verdicts) if withholds else None,
        finite[0][0].text,
        tuple(round(gain, 4) for gain in gains),
    )
