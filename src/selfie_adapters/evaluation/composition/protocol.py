"""The composition protocol: of two concepts mixed into one vector, which are named?

A mixture is share · a + (1 − share) · b of unit vectors of two held-out concepts, after their mean
is subtracted. It is labelled

plain      as selfie label does: one greedy label
concepts   as selfie label --concepts N does; the labels that are shown
removed    plainly, after a's own direction is projected out: what an exact removal would give

Pure vectors (share 1) give the rate of false second concepts: further labels that are shown though
there is one concept. floor: how often a label of another pair's mixture names a concept of this
one. A concept is named by a label that is right (`naming/judging.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor

from selfie_adapters.config.evaluation.composition import CompositionSettings
from selfie_adapters.config.shared import Sampling
from selfie_adapters.evaluation.naming.judging import judge as judge_label
from selfie_adapters.evaluation.pairs import PairsProtocol
from selfie_adapters.evaluation.tables import Table, percent
from selfie_adapters.labelling.choosing import judge, no_concept_label
from selfie_adapters.labelling.decomposition.concepts import Decomposer
from selfie_adapters.labelling.decomposition.reconstruction import (
    Reconstructor,
    orthonormal,
    without,
)
from selfie_adapters.reading.calibration import calibration
from selfie_adapters.sources.topics.topic import Topic
from selfie_adapters.statistics import auroc, wilson

PURE = 1.0
PLAIN, CONCEPTS, REMOVED = "plain", "concepts", "removed"


class CompositionRow(msgspec.Struct):
    """The labels of one batch of vectors: of each vector its labels, as the fields of `Said`."""

    found: list[list[tuple[str, bool, float, float]]]


@dataclass(frozen=True)
class Said:
    """One label of a vector: whether it is shown, its gain, and the share it explains."""

    text: str
    shown: bool
    gain: float
    explained: float


class CompositionProtocol(PairsProtocol[CompositionSettings]):
    """Two concepts, mixed at several shares."""

    settings_class = CompositionSettings
    row = CompositionRow

    def measure(self) -> dict[str, Any]:
        settings, pairs = self.settings, self.settings.pairs
        labeller = self.labeller()
        adapter = labeller.adapter
        confidence = calibration(self.adapter_file)
        here = None if confidence is None else confidence.at(*self.place)
        nothing = no_concept_label(adapter)
        sampling = Sampling(max_new_tokens=settings.max_new_tokens)
        decomposer = Decomposer(
            labeller,
            Reconstructor(self.model, adapter),
            settings.concepts,
            sampling,
            seed=settings.seed,
            samples=settings.best_of - 1,
            temperature=settings.temperature,
        )

        def read(condition: str, share: float, vectors: Tensor) -> list[list[Said]]:
            def make(which: range) -> list[Any]:
                some = vectors[which.start : which.stop]
                places = [self.place] * len(which)
                names = [(f"{share:g}", i) for i in which]
                if condition != CONCEPTS:
                    labels = labeller.label(some, sampling=sampling, places=places)
                    verdicts = [judge(label, here, nothing) for (label,) in labels]
                    return [
                        [(label.text, verdict.withheld is None, label.gain, 0.0)]
                        for (label,), verdict in zip(labels, verdicts, strict=True)
                    ]
                found = decomposer.concepts(
                    some, lambda _, label: judge(label, here, nothing), names, places
                )
                return [
                    [
                        (
                            one.label.text,
                            one.verdict.withheld is None,
                            one.label.gain,
                            one.explained,
                        )
                        for one in its
                    ]
                    for its in found
                ]

            unit = f"{condition} {share:g}"
            raw = self.in_batches(unit, len(vectors), settings.batch_size, "found", make)
            return [[Said(*one) for one in its] for its in raw]

        first, second = self.first, self.second
        one, two = self.topics
        rows = []
        for share in settings.shares:
            mixed = share * first + (1 - share) * second
            cleared = torch.stack(
                [without(v, orthonormal(a[None])) for v, a in zip(mixed, first, strict=True)]
            )
            for condition, vectors in ((PLAIN, mixed), (CONCEPTS, mixed), (REMOVED, cleared)):
                labels = read(condition, share, vectors)
                rows.append(
                    {"share": share, "condition": condition} | named(labels, one, two, condition)
                )
        pure = read(CONCEPTS, PURE, first)
        right = sum(_names(its[:1], topic) for its, topic in zip(pure, one, strict=True))
        false = sum(any(label.shown for label in its[1:]) for its in pure)
        return {
            "pairs": pairs,
            "mixtures": rows,
            "pure": {
                "false_second": asdict(wilson(false, pairs)),
                "named": asdict(wilson(right, pairs)),
                **separation(pure, one),
            },
        }

    @classmethod
    def report(cls, results: Mapping[str, Any]) -> Iterator[Table | str]:
        rows = [
            [f"{row['share']:g}", row["condition"]]
            + [percent(row[key]) for key in ("first", "second", "both", "floor")]
            for row in results["mixtures"]
        ]
        yield Table(
            f"Concepts named in mixtures of two, percent of {results['pairs']} pairs",
            ("share", "labelled", "larger", "smaller", "both", "floor"),
            rows,
            names=2,
            caption="95 % Wilson intervals. floor: the smaller one, by a label of another pair.",
            narrow=True,
        )
        pure = results["pure"]
        yield f"Pure vectors: false second concept {percent(pure['false_second'])} %"
        if pure["auroc_explained"] is not None:
            yield (
                f"Right against wrong first labels of pure vectors, AUROC: explained variance "
                f"{pure['auroc_explained']:.2f}, gain {pure['auroc_gain']:.2f}"
            )


def _names(labels: Sequence[Said], topic: Topic) -> bool:
    return any(judge_label(label.text, topic) == "right" for label in labels)


def named(
    labels: Sequence[Sequence[Said]], one: Sequence[Topic], two: Sequence[Topic], condition: str
) -> dict[str, Any]:
    """Shares of mixtures whose larger and smaller concept is named, and of both, with the floor.

    Of several concepts the first label counts as for plain labelling, others if they are shown.
    """
    counted = [[*its[:1], *(label for label in its[1:] if label.shown)] for its in labels]
    first = [_names(its, topic) for its, topic in zip(counted, one, strict=True)]
    second = [_names(its, topic) for its, topic in zip(counted, two, strict=True)]
    moved = [*counted[1:], *counted[:1]]
    floor = [_names(its, topic) for its, topic in zip(moved, two, strict=True)]
    both = [a and b for a, b in zip(first, second, strict=True)]
    outcomes = {"first": first, "second": second, "both": both, "floor": floor}
    return {key: asdict(wilson(sum(found), len(found))) for key, found in outcomes.items()}


def separation(labels: Sequence[Sequence[Said]], topics: Sequence[Topic]) -> dict[str, Any]:
    """How well explained variance and gain tell right first labels of pure vectors from others:
    areas under the ROC curve, None where all are alike, and means of explained variance."""
    right = np.array([_names(its[:1], topic) for its, topic in zip(labels, topics, strict=True)])
    shares, gains = (
        np.array([getattr(its[0], key) for its in labels]) for key in ("explained", "gain")
    )
    if right.all() or not right.any():
        return {"auroc_explained": None, "auroc_gain": None}
    return {
        "auroc_explained": auroc(shares, right),
        "auroc_gain": auroc(gains, right),
        "explained_right": float(shares[right].mean()),
        "explained_wrong": float(shares[~right].mean()),
    }
