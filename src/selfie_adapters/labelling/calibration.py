"""Label vectors whose labels are known, and vectors that mean nothing, and fit a confidence."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from selfie_adapters.dataset.controls import random_vectors
from selfie_adapters.errors import DataError
from selfie_adapters.inference.microbatch import rows_per_batch
from selfie_adapters.labelling.choosing import meaning, rank_labels
from selfie_adapters.labelling.confidence import Confidence, Evidence, fit_confidence
from selfie_adapters.labelling.controls import draw
from selfie_adapters.labelling.labeller import Label
from selfie_adapters.labelling.worker import ShardWorker

ZEROS = 20
"""Zero vectors that are labelled: with one greedy label each is like the next."""


def calibrate(
    worker: ShardWorker,
    positions: Sequence[int],
    precision: float,
    control_rate: float,
    controls: int,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Confidence:
    """A confidence for labels drawn as the worker draws them, from vectors of its source.

    Each vector's best label counts as right if it is one of its own labels, ignoring case and
    whitespace. controls: how many random directions are labelled, with norms of the vectors.
    progress: called with the vectors done and their total.
    Raises DataError for a source without labels, and like `fit_confidence`.
    """
    settings, source = worker.settings, worker.source
    if source.dataset is None:
        raise DataError(
            f"{settings.source}: a file of vectors alone. Calibration compares with known labels; "
            "give a training file."
        )
    known = {
        (number, item.index): {meaning(label) for label in item.labels}
        for number, section in enumerate(source.dataset.sections)
        for item in section.items
    }
    total = len(positions) + controls + ZEROS
    at_once = settings.batch_size or rows_per_batch(worker.labeller.model)
    done = 0

    def best(kind: str, vectors: Tensor) -> tuple[list[Label], Evidence]:
        nonlocal done
        labels: list[Label] = []
        shares: list[float] = []
        for start in range(0, len(vectors), at_once):
            some = vectors[start : start + at_once]
            names = [(kind, start + i) for i in range(len(some))]
            for drawn in draw(worker.labeller, settings, some, names):
                first = rank_labels(drawn)[0]
                labels.append(first.label)
                shares.append(first.agreement)
            done += len(some)
            progress(done, total)
        return labels, Evidence.of(labels, shares)

    vectors = worker.vectors(list(positions))
    labels, evidence = best("calibration", vectors)
    right = [
        meaning(label.text) in known[source.places[position]]
        for label, position in zip(labels, positions, strict=True)
    ]
    picked = torch.arange(controls) % len(vectors)
    kinds = {
        "random": best("random", random_vectors(vectors[picked], settings.seed))[1],
        "zero": best("zero", torch.zeros(ZEROS, source.d_model))[1],
    }
    return fit_confidence(
        evidence, right, kinds, precision, control_rate, settings.way_of_drawing()
    )
