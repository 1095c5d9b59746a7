"""Losses of conditions, adapters and recipes compared, and the tables that show them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np

from selfie_adapters.config.evaluation.loss import LossSettings
from selfie_adapters.evaluation.comparing import (
    Paired,
    adjusted,
    comparison,
    difference_cell,
    over_seeds,
    paired,
    side_by_side,
)
from selfie_adapters.evaluation.recipes import SEEDS, Subject, over_members, subjects
from selfie_adapters.evaluation.tables import Table, shown
from selfie_adapters.statistics import Interval, bootstrap_of_means

Losses = Mapping[str, Sequence[Sequence[float]]]
"""Name of a condition → per vector the losses of its labels, nats per token."""
Cells = Mapping[tuple[str, str], Losses]
"""(adapter, data set) → losses."""
TRAINED, IDENTITY = "trained", "identity"
FEW = 5  # adapters, up to which the report compares them with each other


def summary(adapter: str, dataset: str, losses: Losses, seed: int) -> dict[str, Any]:
    """Mean losses of one adapter on one data set under every condition."""
    labels = [len(one) for one in losses[TRAINED]]
    sums = {c: np.array([sum(one) for one in rows]) for c, rows in losses.items()}
    intervals = {c: _mean_over_examples([sums[c]], labels, _first, seed) for c in losses}
    parts = [sums[IDENTITY], sums["zero"], sums[TRAINED]]
    better = intervals[IDENTITY].mean > intervals[TRAINED].mean
    share = _mean_over_examples(parts, labels, _bias_share, seed) if better else None
    return {
        "adapter": adapter,
        "dataset": dataset,
        "vectors": len(labels),
        "examples": sum(labels),
        "loss": {condition: asdict(interval) for condition, interval in intervals.items()},
        "bias_share": None if share is None else asdict(share),
    }


def _mean_over_examples(
    sums: Sequence[np.ndarray],
    labels: Sequence[int],
    of: Callable[[np.ndarray], np.ndarray],
    seed: int,
) -> Interval:
    """A number made of means over examples, its interval over vectors.

    sums: per quantity [vectors], summed over each vector's labels; labels: how many it has.
    A vector's weight is its number of examples; it is resampled with all of them.
    """
    columns = np.stack([*sums, np.array(labels, dtype=np.float64)], axis=1)
    return bootstrap_of_means(columns, lambda means: of(means[..., :-1] / means[..., -1:]), seed)


def _first(means: np.ndarray) -> np.ndarray:
    return means[..., 0]


def _bias_share(means: np.ndarray) -> np.ndarray:
    without, zero, trained = means[..., 0], means[..., 1], means[..., 2]
    return (without - zero) / (without - trained)


def matrix(settings: LossSettings, cells: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Adapters × data sets; the last rows are controls, with the first adapter's prompt."""
    by_pair = {(cell["adapter"], cell["dataset"]): cell["loss"] for cell in cells}
    first = next(iter(settings.adapters))
    rows = {
        name: [by_pair[name, data]["trained"]["mean"] for data in settings.datasets]
        for name in settings.adapters
    }
    for control in ("untrained", "identity"):
        rows[control] = [by_pair[first, data][control]["mean"] for data in settings.datasets]
    return {"rows": [*rows], "columns": [*settings.datasets], "loss": [*rows.values()]}


def compare_cells(cells: Cells, seed: int) -> list[dict[str, Any]]:
    """What each adapter saves against each control, and against the other adapters; nats per token.

    Vectors are the units, and every label counts once. The family of the p values is all of them.
    """
    found = []
    for (adapter, dataset), losses in cells.items():
        for control in losses:
            if control != TRAINED and losses[control] != losses[TRAINED]:
                saved = _saved(losses[TRAINED], losses[control], seed)
                found.append(comparison(adapter, control, "loss", saved, dataset=dataset))
    for dataset in dict.fromkeys(dataset for _, dataset in cells):
        names = [adapter for adapter, of in cells if of == dataset]
        for one, two in combinations(names, 2):
            saved = _saved(cells[one, dataset][TRAINED], cells[two, dataset][TRAINED], seed)
            found.append(comparison(one, two, "loss", saved, dataset=dataset))
    return adjusted(found)


def _saved(
    first: Sequence[Sequence[float]], second: Sequence[Sequence[float]], seed: int
) -> Paired:
    units = np.repeat(np.arange(len(first)), [len(labels) for labels in first])
    flat = [np.concatenate([np.asarray(labels) for labels in one]) for one in (second, first)]
    return paired(flat[0], flat[1], units, each="row", seed=seed)


def compare_recipes(
    cells: Cells, recipes: Mapping[str, Sequence[str]], seed: int
) -> list[dict[str, Any]]:
    """Recipe by data set: the mean loss over its seeds, and what it saves against each control."""
    results = []
    for dataset in dict.fromkeys(dataset for _, dataset in cells):
        for recipe, names in recipes.items():
            of = [cells[name, dataset] for name in names]
            counts = np.array([len(labels) for labels in of[0][TRAINED]], dtype=np.float64)
            sums = {
                control: np.array([[sum(labels) for labels in one[control]] for one in of])
                for control in of[0]
                if all(control in one for one in of)
            }
            loss = over_seeds(sums[TRAINED], counts, seed).difference
            pairs = [
                comparison(recipe, control, "loss", over_seeds(table - sums[TRAINED], counts, seed))
                for control, table in sums.items()
                if control != TRAINED
            ]
            results.append(
                {
                    "recipe": recipe,
                    "dataset": dataset,
                    "adapters": [*names],
                    "loss": asdict(loss),
                    "by_seed": [float(one.sum() / counts.sum()) for one in sums[TRAINED]],
                    "comparisons": pairs,
                }
            )
    adjusted(pair for one in results for pair in one["comparisons"])
    return results


def report(results: Mapping[str, Any]) -> Iterator[Table | str]:
    """Per data set the losses by condition and adapter, and what is saved against each control.

    Adapters of one recipe are one column, with the interval over seeds.
    """
    every = [*loss_reports(results)]
    for dataset in dict.fromkeys(one.dataset for one in every):
        of = [one for one in every if one.dataset == dataset]
        cells = {
            (condition, one.subject.title): shown(found)
            for condition in of[0].loss
            for one in of
            if (found := one.loss.get(condition)) is not None
        }
        cells |= {("bias share", one.subject.title): shown(one.bias_share) for one in of}
        seeds = any(len(one.subject.adapters) > 1 for one in of)
        yield from side_by_side(
            f"Loss of held-out labels on {dataset}, nats per token",
            "condition",
            cells,
            "95 % intervals" + (SEEDS if seeds else ""),
            bold={TRAINED},
        )
        differences = _differences(results, dataset, [one.subject for one in of])
        yield from side_by_side(
            f"Nats per token that each adapter saves on {dataset}",
            "against",
            differences,
            "differences with 95 % intervals and Holm's p",
        )


@dataclass(frozen=True)
class LossReport:
    """A row of the report: an adapter, or a recipe's adapters, on one data set.

    loss: condition → an interval, or what `recipes.over_members` makes of several.
    """

    subject: Subject
    dataset: str
    loss: Mapping[str, Mapping[str, Any]]
    bias_share: Mapping[str, Any] | None
    vectors: int
    examples: int


def loss_reports(results: Mapping[str, Any]) -> Iterator[LossReport]:
    """The rows of the report."""
    cells = {(cell["adapter"], cell["dataset"]): cell for cell in results["cells"]}
    known = results.get("recipes", [])  # not in results of earlier releases
    over = {(one["recipe"], one["dataset"]): one["loss"] for one in known}
    for subject in subjects((adapter for adapter, _ in cells), known):
        for dataset in dict.fromkeys(dataset for _, dataset in cells):
            of = [cells[name, dataset] for name in subject.adapters if (name, dataset) in cells]
            if len(of) < len(subject.adapters):
                continue
            loss = {}
            for condition in of[0]["loss"]:
                found = over.get((subject.name, dataset)) if condition == TRAINED else None
                pooled = over_members([cell["loss"].get(condition) for cell in of], found)
                if pooled is not None:
                    loss[condition] = pooled
            shares = over_members([cell["bias_share"] for cell in of])
            first = of[0]
            yield LossReport(subject, dataset, loss, shares, first["vectors"], first["examples"])


def _differences(
    results: Mapping[str, Any], dataset: str, of: Sequence[Subject]
) -> dict[tuple[str, str], str]:
    """(against, adapter) → difference: each control, then other adapters where they are few."""
    single = {one.name for one in of if len(one.adapters) == 1}
    few = len(of) <= FEW
    pairs = [
        one
        for one in results.get("comparisons", [])
        if one["dataset"] == dataset and one["first"] in single
    ]
    for one in results.get("recipes", []):
        pairs += one["comparisons"] if one["dataset"] == dataset else []
    adapters = {name for one in of for name in one.adapters}
    titles = {one.name: one.title for one in of}
    kept = [one for one in pairs if one["second"] not in adapters]
    kept += [one for one in pairs if few and one["second"] in single]
    return {
        (one["second"], titles[one["first"]]): difference_cell(one["difference"], one.get("p_holm"))
        for one in kept
    }
