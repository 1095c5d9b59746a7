"""What adapters and their controls get on the same rows, compared by recipe.

A subject (`recipes.Subject`) is an adapter, or the adapters of one recipe. It is compared with its
controls and with the other subjects; the seeds of a recipe are a level of its intervals
(`comparing.over_seeds`), and two seeds of one recipe are no comparison.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np

from selfie_adapters.evaluation.comparing import (
    Each,
    Paired,
    by_unit,
    comparison,
    over_seeds,
    paired,
)
from selfie_adapters.evaluation.recipes import Subject
from selfie_adapters.statistics import share_interval

Values = Mapping[str, np.ndarray]
"""Measure → [rows]."""


def every_comparison(place: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What `AdapterOutcomes.by_subject` put into `place`, to be adjusted or shown."""
    yield from place.get("comparisons", ())  # results of earlier releases may lack either
    for recipe in place.get("recipes", ()):
        yield from recipe["comparisons"]


def by_adapter(
    found: Iterable[tuple[str, Values]], adapters: Sequence[str], own: str
) -> dict[str, dict[str, Values]]:
    """Conditions by name as `AdapterOutcomes` has them: adapter → condition → values.

    found: a control of one adapter is called "{adapter}: {control}"; what has no adapter's name is
    shared by all.
    """
    values: dict[str, dict[str, Values]] = {name: {} for name in adapters}
    for condition, one in found:
        if condition in values:
            values[condition][own] = one
            continue
        owner = [name for name in adapters if condition.startswith(f"{name}: ")]
        for name in owner or adapters:
            values[name][condition.removeprefix(f"{name}: ")] = one
    return values


def _are_shares(*tables: np.ndarray) -> bool:
    """Whether all are from 0 to 1: intervals of shares are valid where resamples do not vary."""
    return all(table.min() >= 0 and table.max() <= 1 for table in tables)


@dataclass(frozen=True)
class AdapterOutcomes:
    """values: adapter → condition → measure → [rows]; what the adapter itself gets is its condition
    `own`, the others are controls. units: [rows], which are resampled; None: every row. each: what
    counts once in a mean. lower_is_better: then a difference is the second minus the first.
    measures: those that comparisons are by; None: all. pair: what compares two conditions of one
    adapter, or two adapters.
    """

    values: Mapping[str, Mapping[str, Values]]
    own: str
    units: Sequence[Hashable] | np.ndarray | None = None
    each: Each = "unit"
    lower_is_better: bool = False
    seed: int = 0
    measures: Collection[str] | None = None
    pair: Callable[..., Paired] = paired

    def recipe(self, subject: Subject) -> dict[str, Any]:
        """A recipe's adapters; per measure the mean over seeds with its interval (`mean`), and the
        mean of each seed."""
        found, by_seed = {}, {}
        for measure in self._of(subject.adapters[0]):
            table, weights = self._table(subject, self.own, measure)
            if weights is None and _are_shares(table) and np.ptp(table) == 0:
                mean = share_interval(table[0])  # resamples would be certain of it
            else:
                mean = over_seeds(table, weights, self.seed).difference
            found[measure] = asdict(mean)
            counts = table.shape[1] if weights is None else weights.sum()
            by_seed[measure] = [float(one.sum() / counts) for one in table]
        return {"adapters": [*subject.adapters], "mean": found, "by_seed": by_seed}

    def comparisons(self, of: Sequence[Subject], **about: Any) -> Iterator[dict[str, Any]]:
        """Every subject with its controls, then the subjects with each other, by every measure.

        about: what else they are of, such as a block. p values are not adjusted yet.
        """
        for subject in of:
            yield from self.with_controls(subject, **about)
        for one, two in combinations(of, 2):
            yield from self.between(one, two, **about)

    def by_subject(self, of: Sequence[Subject], **about: Any) -> dict[str, Any]:
        """`comparisons` as results.json holds them: those of adapters without a recipe, and those
        of each recipe with its means."""
        found = [*self.comparisons(of, **about)]
        recipes = [one for one in of if len(one.adapters) > 1]
        names = {one.name for one in recipes}
        return {
            "comparisons": [one for one in found if one["first"] not in names],
            "recipes": [
                {"recipe": recipe.name, **self.recipe(recipe)}
                | {"comparisons": [one for one in found if one["first"] == recipe.name]}
                for recipe in recipes
            ],
        }

    def with_controls(self, subject: Subject, **about: Any) -> Iterator[dict[str, Any]]:
        """A subject compared with each control that all its adapters have."""
        of = [self.values[name] for name in subject.adapters]
        for control in of[0]:
            if control == self.own or not all(control in one for one in of):
                continue
            for measure in self._compared(subject):
                found = self._with_control(subject, control, measure)
                yield comparison(subject.name, control, measure, found, **about)

    def between(self, one: Subject, two: Subject, **about: Any) -> Iterator[dict[str, Any]]:
        """Two subjects compared; the seeds of both are resampled, each on their own."""
        for measure in self._compared(one):
            found = self._between(one, two, measure)
            yield comparison(one.name, two.name, measure, found, **about)

    def _of(self, adapter: str) -> Values:
        return self.values[adapter][self.own]

    def _compared(self, subject: Subject) -> list[str]:
        every = self._of(subject.adapters[0])
        return [one for one in every if self.measures is None or one in self.measures]

    def _with_control(self, subject: Subject, control: str, measure: str) -> Paired:
        if len(subject.adapters) == 1:
            of = self.values[subject.adapters[0]]
            return self._paired(of[self.own][measure], of[control][measure])
        mine, weights = self._table(subject, self.own, measure)
        theirs, _ = self._table(subject, control, measure)
        if weights is None and _are_shares(mine, theirs) and np.ptp(mine - theirs) == 0:
            return self.pair(mine.mean(axis=0), theirs.mean(axis=0))
        return over_seeds(self._sign * (mine - theirs), weights, self.seed)

    def _between(self, one: Subject, two: Subject, measure: str) -> Paired:
        if len(one.adapters) == len(two.adapters) == 1:
            return self._paired(
                self._of(one.adapters[0])[measure], self._of(two.adapters[0])[measure]
            )
        mine, weights = self._table(one, self.own, measure)
        theirs, _ = self._table(two, self.own, measure)
        every = mine[:, None] - theirs[None]  # [seeds, seeds, units]
        if weights is None and _are_shares(mine, theirs) and np.ptp(every) == 0:
            return self.pair(mine[0], theirs[0])
        return over_seeds(self._sign * mine, weights, self.seed, minus=self._sign * theirs)

    @property
    def _sign(self) -> int:
        return -1 if self.lower_is_better else 1

    def _paired(self, first: np.ndarray, second: np.ndarray) -> Paired:
        one, two = (second, first) if self.lower_is_better else (first, second)
        return self.pair(one, two, self.units, self.each, self.seed)

    def _table(
        self, subject: Subject, condition: str, measure: str
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """What each adapter gets at each unit, [seeds, units], and how many rows units have where
        rows count."""
        of = [
            by_unit(np.asarray(self.values[name][condition][measure], float), self.units)
            for name in subject.adapters
        ]
        sums, counts = np.stack([one for one, _ in of]), of[0][1]
        return (sums / counts, None) if self.each == "unit" else (sums, counts)
