"""The sensitivity protocol: how strong must a direction be before the label follows it?

h is the unit vector of a held-out concept A, its mean subtracted. h + λ · v is labelled as selfie
label does, one greedy label, where v is a unit vector:

concept   the vector of another held-out concept B
style     from plain text to the chat form of the same prompts (`style`); omitted for a tokenizer
          without a chat template
random    a random direction, another one for each pair

A label keeps A or follows B if it is right for it (`naming/judging.py`); with style and random
directions, naming B is chance. The smallest λ at which a label follows B, and at which A is lost,
is stated over pairs whose concepts are both named by their own vectors alone: the others cannot
follow, or have nothing to lose.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from torch import Tensor

from selfie_adapters.config.evaluation.sensitivity import SensitivitySettings
from selfie_adapters.config.shared import Sampling
from selfie_adapters.dataset.captured import Captured
from selfie_adapters.evaluation.base import LabelsRow
from selfie_adapters.evaluation.comparing import METHOD, p_text
from selfie_adapters.evaluation.controls import random_directions
from selfie_adapters.evaluation.pairs import PairsProtocol
from selfie_adapters.evaluation.sensitivity.following import (
    CONCEPT,
    RANDOM,
    STYLE,
    Outcomes,
    comparisons,
    names,
    thresholds,
)
from selfie_adapters.evaluation.sensitivity.style import chat_form, style_direction
from selfie_adapters.evaluation.tables import Table, percent
from selfie_adapters.labelling.choosing import no_concept_label
from selfie_adapters.statistics import wilson

NO_STYLE = "Style: not measured; the tokenizer has no chat template."


class SensitivityProtocol(PairsProtocol[SensitivitySettings]):
    """Directions are added to the first vector of each pair."""

    settings_class = SensitivitySettings
    row = LabelsRow

    def measure(self) -> dict[str, Any]:
        settings, (one, two) = self.settings, self.topics
        self._labeller = self.labeller()
        strengths = sorted(set(settings.strengths))
        pure = names(self._labels("first alone", self.first), one)
        other = names(self._labels("second alone", self.second), two)
        no_concept = no_concept_label(self._labeller.adapter)
        outcomes = {
            direction: [
                Outcomes.of(
                    self._labels(f"{direction} {strength}", self.first + strength * v),
                    one,
                    two,
                    no_concept,
                )
                for strength in strengths
            ]
            for direction, v in self._directions()
        }
        both = [a and b for a, b in zip(pure, other, strict=True)]
        return {
            "pairs": [[a.title, b.title] for a, b in zip(one, two, strict=True)],
            "alone": {
                key: asdict(wilson(sum(found), len(found)))
                for key, found in (("first", pure), ("second", other), ("both", both))
            },
            "labels": [
                {"strength": strength, "direction": direction, **found.shares()}
                for direction, its in outcomes.items()
                for strength, found in zip(strengths, its, strict=True)
            ],
            "thresholds": thresholds(strengths, outcomes, both),
            "comparisons": comparisons(strengths, outcomes),
            "method": METHOD,
        }

    def _directions(self) -> Iterator[tuple[str, Tensor]]:
        """Each kind of direction with its unit vectors, one for all pairs or one per pair."""
        settings = self.settings
        yield CONCEPT, self.second
        captured = Captured.by_sections([self.section])
        if chat_form(self.model, captured) is not None:
            self.progress("capturing the style", 0, 1)
            layer, kind = settings.layer, settings.position
            style = style_direction(self.model, self.topics[0], layer, kind, captured)
            yield STYLE, style.float()
        width = self.first.shape[1]
        yield RANDOM, random_directions(settings.pairs, width, settings.seed)

    def _labels(self, unit: str, vectors: Tensor) -> list[str]:
        """One greedy label per vector [pairs, d_model], kept batch by batch."""
        sampling = Sampling(max_new_tokens=self.settings.max_new_tokens)

        def make(which: range) -> list[str]:
            labels = self._labeller.label(
                vectors[which.start : which.stop],
                sampling=sampling,
                places=[self.place] * len(which),
            )
            return [label.text for (label,) in labels]

        return self.in_batches(unit, len(vectors), self.settings.batch_size, "labels", make)

    @classmethod
    def report(cls, results: Mapping[str, Any]) -> Iterator[Table | str]:
        yield Table(
            f"What h + λ · v is labelled, percent of {len(results['pairs'])} pairs",
            ("v", "λ", "A kept", "B followed", "no concept"),
            [
                [row["direction"], f"{row['strength']:g}"]
                + [percent(row[key]) for key in ("kept", "followed", "nothing")]
                for row in results["labels"]
            ],
            names=2,
            caption="95 % Wilson intervals. h: of concept A; v: of concept B, a style, or random.",
            narrow=True,
        )
        alone = results["alone"]
        yield (
            f"Named by their own vectors, percent: A {percent(alone['first'])}, "
            f"B {percent(alone['second'])}, both {percent(alone['both'])}"
        )
        yield Table(
            "The smallest λ at which the label follows B or loses A, of pairs named alone",
            ("v", "label", "percent", "median λ"),
            [
                [
                    one["direction"],
                    one["outcome"],
                    percent(one["reached"]),
                    "–" if one["median"] is None else f"{one['median']:g}",
                ]
                for one in results["thresholds"]
            ],
            names=2,
            caption="percent: at any λ. A dash: fewer than half at any λ.",
            narrow=True,
        )
        yield Table(
            "A kept with a random direction, minus with v of the same length, points",
            ("v", "λ", "difference", "p (Holm)"),
            [
                [
                    one["second"],
                    f"{one['strength']:g}",
                    percent(one["difference"], sign="+"),
                    p_text(one),
                ]
                for one in results["comparisons"]
            ],
            names=2,
            narrow=True,
        )
        if all(row["direction"] != STYLE for row in results["labels"]):
            yield NO_STYLE
