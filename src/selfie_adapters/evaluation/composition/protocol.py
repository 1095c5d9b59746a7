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

from selfie_adapters.adapters import find_adapter_file, load_adapter
from selfie_adapters.adapters.base import unit_norm
from selfie_adapters.adapters.locating import usual_adapter
from selfie_adapters.adapters.specialists import adapter_digest
from selfie_adapters.config.evaluation.composition import CompositionSettings
from selfie_adapters.dataset import load_dataset
from selfie_adapters.dataset.captured import stated_kind
from selfie_adapters.errors import ConfigError, DataError
from selfie_adapters.evaluation.base import Protocol, Table, percent
from selfie_adapters.evaluation.folder import dataset_hash
from selfie_adapters.evaluation.naming.judging import judge as judge_label
from selfie_adapters.inference.sampling import Sampling
from selfie_adapters.labelling import Labeller
from selfie_adapters.labelling.choosing import judge, no_concept_label
from selfie_adapters.labelling.decomposition.concepts import Decomposer
from selfie_adapters.labelling.decomposition.reconstruction import (
    Reconstructor,
    orthonormal,
    without,
)
from selfie_adapters.reading.read import calibration
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


class CompositionProtocol(Protocol[CompositionSettings]):
    """Vectors are those of one section: one block and one kind of position."""

    settings_class = CompositionSettings
    row = CompositionRow

    def inputs(self) -> dict[str, str]:
        settings = self.settings
        named = usual_adapter(settings.adapter, settings.model)
        if named is None:
            raise ConfigError(
                f"selfie eval composition with {settings.model} needs --adapter FILE: one that was "
                "trained for this model."
            )
        self.settings = settings.model_copy(update={"adapter": named})
        self._adapter_file = find_adapter_file(named)
        self._dataset = load_dataset(settings.source)
        self._vectors, self._topics = self._concepts()
        return {
            "adapter_file": adapter_digest(self._adapter_file),
            "training_file": dataset_hash(self._dataset),
        }

    def _concepts(self) -> tuple[Tensor, list[Topic]]:
        """Unit vectors [2 · pairs, d_model] of different concepts, and the concepts."""
        settings = self.settings
        for section in self._dataset.sections:
            if section.layer != settings.layer or stated_kind(section.metadata) is None:
                continue
            if stated_kind(section.metadata) == settings.position:
                break
        else:
            known = sorted(
                {(one.layer, str(one.metadata.get("position"))) for one in self._dataset.sections}
            )
            listed = ", ".join(f"{layer} at {kind}" for layer, kind in known)
            raise ConfigError(
                f"{settings.source}: no vectors of block {settings.layer} at position "
                f"{settings.position}; it has {listed}. Choose with --layer and --position."
            )
        rows = {one.labels[0]: one.index for one in section.items if one.split == settings.split}
        names = sorted(rows)
        if len(names) < 2 * settings.pairs:
            raise DataError(
                f"{settings.source}, {section.id}: {len(names)} concepts with the split "
                f'"{settings.split}"; {settings.pairs} pairs need {2 * settings.pairs}. Give a '
                "smaller --pairs."
            )
        order = np.random.default_rng(settings.seed).permutation(len(names))
        chosen = [names[i] for i in order[: 2 * settings.pairs]]
        vectors = section.vectors[torch.tensor([rows[name] for name in chosen])].float()
        return unit_norm(vectors), [Topic((name,), name=name) for name in chosen]

    def measure(self) -> dict[str, Any]:
        self.check_width(self._dataset, self.settings.source)
        settings, pairs = self.settings, self.settings.pairs
        adapter = load_adapter(self._adapter_file)
        self._labeller = Labeller(self.model, adapter)
        confidence = calibration(self._adapter_file)
        place = (settings.layer, settings.position)
        here = None if confidence is None else confidence.at(*place)
        nothing = no_concept_label(adapter)
        sampling = Sampling(max_new_tokens=settings.max_new_tokens)
        decomposer = Decomposer(
            self._labeller,
            Reconstructor(self.model, adapter),
            settings.concepts,
            sampling,
            seed=settings.seed,
        )

        def read(condition: str, share: float, vectors: Tensor) -> list[list[Said]]:
            def make(which: range) -> list[Any]:
                some = vectors[which.start : which.stop]
                places = [place] * len(which)
                names = [(f"{share:g}", i) for i in which]
                if condition != CONCEPTS:
                    labels = self._labeller.label(some, sampling=sampling, places=places)
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

        first, second = self._vectors[:pairs], self._vectors[pairs:]
        one, two = self._topics[:pairs], self._topics[pairs:]
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
