"""Label vectors whose labels are known, and vectors that mean nothing, and fit a confidence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict

import numpy as np
import torch
from torch import Tensor

from selfie_adapters.adapters.specialists import Place
from selfie_adapters.dataset.controls import random_vectors
from selfie_adapters.dataset.source import LabelSource
from selfie_adapters.errors import ConfigError, DataError
from selfie_adapters.inference.generate import row_seed
from selfie_adapters.inference.microbatch import rows_per_batch
from selfie_adapters.labelling.choosing import is_no_concept, rank_labels
from selfie_adapters.labelling.confidence import Confidence, PlaceCalibration
from selfie_adapters.labelling.fitting import (
    Evidence,
    Sample,
    check_controls,
    check_enough,
    check_shown,
    controls_needed,
    fit_calibration,
    own_or_common,
)
from selfie_adapters.labelling.label import Label
from selfie_adapters.labelling.worker import ShardWorker
from selfie_adapters.words import plain

SAMPLED_ZEROS = 20
"""Zero vectors that are labelled where labels are sampled; one greedy label is like the next."""


def calibrate(
    worker: ShardWorker,
    positions: Sequence[int],
    precision: float,
    control_rate: float,
    controls: int,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Confidence:
    """A confidence for labels sampled as the worker samples them, from vectors of its source.

    Each vector's best label counts as right if it is one of its own labels, ignoring case and
    whitespace. For vectors without a concept (sections of vector_type "null") every label is wrong;
    the adapter's answer "no concept" is silence, for any vector. One calibration is fitted for each
    layer and kind of position, with the vectors without a concept of that layer, and one for all
    together; where there is one layer and kind only, these are the same. A place with few labels
    that proves no threshold of its own gets the common one (`own_or_common`).

    controls: how many random directions are labelled for each layer, with norms of its vectors.
    Their rate is judged layer by layer where those and the vectors without a concept are enough to
    prove it, else with those of all layers.
    progress: called with the vectors done and their total.
    Raises DataError for a source without labels, for too few controls, and like `check_enough` and
    `check_shown`; ConfigError for a precision or rate that is no share.
    """
    settings, source = worker.settings, worker.source
    if not 0 < precision <= 1:
        raise ConfigError(f"precision {precision}: a share above 0, at most 1, is expected.")
    if source.dataset is None:
        raise DataError(
            f"{settings.source}: a file of vectors without labels. Calibration needs known "
            "labels; give a training file."
        )
    concept = np.array([source.holds_concept(position) for position in positions], dtype=bool)
    if not concept.any():
        raise DataError(
            f"{settings.source}: no vector of split {settings.split} holds a concept (their "
            'sections are of vector_type "null"). Take another split or file.'
        )
    places: list[tuple[int, str | None]] = [
        (source.dataset.sections[source.places[i][0]].layer, source.kind(i)) for i in positions
    ]
    by_layer = np.array([layer for layer, _ in places])
    layers = sorted(set(by_layer.tolist()))
    zeros = SAMPLED_ZEROS if settings.temperature > 0 else 1
    meaningless = int((~concept).sum()) + controls * len(layers) + zeros
    check_controls(meaningless, control_rate)

    groups = sorted(
        {place for place, has in zip(places, concept, strict=True) if has},
        key=lambda place: (place[0], str(place[1])),
    )
    nulls = {layer: ~concept & (by_layer == layer) for layer in layers}
    special = [one for one in groups if worker.labeller.at(*one) is not worker.labeller]
    total = len(positions) + controls * len(layers) + zeros
    total += sum(int(nulls[layer].sum()) + controls + zeros for layer, _ in special)
    label = _Labelling(worker, total, progress)
    vectors = worker.vectors(list(positions))
    labels, evidence = label("calibration", vectors, places)
    right = np.array(
        [
            has and plain(one.text) in {plain(text) for text in source.labels(position)}
            for one, position, has in zip(labels, positions, concept, strict=True)
        ],
        dtype=bool,
    )
    zero = label("zero", torch.zeros(zeros, source.d_model))[1]
    random: dict[int, Evidence] = {}
    directions: dict[int, Tensor] = {}
    for layer in layers:
        here = vectors[torch.from_numpy(by_layer == layer)]
        picked = here[torch.arange(controls) % len(here)]
        directions[layer] = random_vectors(picked, row_seed(settings.seed, "random", layer))
        random[layer] = label(f"random {layer}", directions[layer])[1]

    def sample(rows: np.ndarray, of: Sequence[int]) -> Sample:
        empty = ~concept[rows]
        if empty.sum() + controls * len(of) + zeros < controls_needed(control_rate):
            of = layers
        mixed = {"random": Evidence.joined([random[layer] for layer in of]), "zero": zero}
        return Sample(evidence.only(rows), right[rows], empty, mixed)

    def special_sample(its: np.ndarray, place: tuple[int, str | None]) -> Sample:
        """Everything that holds no concept is labelled by the specialist too."""
        layer = place[0]

        def again(kind: str, some: Tensor) -> Evidence:
            return label(f"{kind} at {place}", some, [place] * len(some))[1]

        empty = again("no concept", vectors[torch.from_numpy(nulls[layer])])
        of_none = np.zeros(len(empty), dtype=bool)
        return Sample(
            Evidence.joined([evidence.only(its), empty]),
            np.concatenate([right[its], of_none]),
            np.concatenate([np.zeros(int(its.sum()), dtype=bool), ~of_none]),
            {
                "random": again("random", directions[layer]),
                "zero": again("zero", torch.zeros(zeros, source.d_model)),
            },
        )

    samples = []
    for group in groups:
        its = np.array([place == group for place in places], dtype=bool) & concept
        if group in special:
            samples.append(special_sample(its, group))
        else:
            samples.append(sample(its | nulls[group[0]], [group[0]]))
    fits = [fit_calibration(one, precision, control_rate) for one in samples]
    common = sample(np.ones(len(places), dtype=bool), layers)
    check_enough(common)
    together = fits[0] if len(fits) == 1 else fit_calibration(common, precision, control_rate)
    check_shown([*fits, together], precision, control_rate)
    fits = [
        own_or_common(one, fit, together.calibration, precision)
        for one, fit in zip(samples, fits, strict=True)
    ]
    return Confidence(
        **asdict(together.calibration),
        settings=settings.way_of_drawing(),
        measured=together.measured,
        places=tuple(
            PlaceCalibration(
                **asdict(one.calibration), layer=layer, position=kind, measured=one.measured
            )
            for (layer, kind), one in zip(groups, fits, strict=True)
            if len(groups) > 1
        ),
    )


def first_of_each_section(source: LabelSource, limit: int | None) -> list[int]:
    """Positions of the first `limit` vectors of each section of a source; None: of all.

    Raises ConfigError for a limit below 1.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"limit {limit}: an integer above 0 is expected.")
    seen: Counter[int] = Counter()
    chosen = []
    for position, (section, _) in enumerate(source.places):
        seen[section] += 1
        if limit is None or seen[section] <= limit:
            chosen.append(position)
    return chosen


class _Labelling:
    """Best labels of vectors, a batch at a time, with what labelling knew of them."""

    def __init__(
        self, worker: ShardWorker, total: int, progress: Callable[[int, int], None]
    ) -> None:
        self.worker, self.total, self.progress, self.done = worker, total, progress, 0
        self.at_once = worker.settings.batch_size or rows_per_batch(worker.labeller.model)

    def __call__(
        self, kind: str, vectors: Tensor, places: Sequence[Place] | None = None
    ) -> tuple[list[Label], Evidence]:
        """kind: what the seeds of sampled labels are made of, with the vector's number. places: see
        `Labeller.at`."""
        worker, labels, shares = self.worker, [], []
        for start in range(0, len(vectors), self.at_once):
            some = vectors[start : start + self.at_once]
            names = [(kind, start + i) for i in range(len(some))]
            here = places and places[start : start + self.at_once]
            for several in worker.sampled(some, names, here):
                first = rank_labels(several)[0]
                labels.append(first.label)
                shares.append(first.agreement)
            self.done += len(some)
            self.progress(self.done, self.total)
        silent = [is_no_concept(label.text, worker.no_concept) for label in labels]
        return labels, Evidence.of(labels, shares, silent)
