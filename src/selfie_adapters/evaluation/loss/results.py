"""Losses of conditions, adapters and recipes compared, and the tables that show them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from selfie_adapters.config.evaluation.loss import LossSettings
from selfie_adapters.evaluation.comparing import adjusted, difference_cell, side_by_side
from selfie_adapters.evaluation.outcomes import AdapterOutcomes
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


def compare_losses(
    cells: Cells, of: Sequence[Subject], seed: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What adapters without a recipe save against their controls and each other, nats per token;
    and recipe by data set the mean loss over its seeds, and what it saves.

    Vectors are the units, and every label counts once. All comparisons are one family; two seeds of
    a recipe are none.
    """
    alone, over = [], []
    for dataset in dict.fromkeys(dataset for _, dataset in cells):
        losses = {adapter: one for (adapter, data), one in cells.items() if data == dataset}
        outcomes = _outcomes(losses, seed)
        found = outcomes.by_subject(of, dataset=dataset)
        alone += found["comparisons"]
        for recipe in found["recipes"]:
            recipe |= {
                "dataset": dataset,
                "loss": recipe.pop("mean")["loss"],
                "by_seed": recipe["by_seed"]["loss"],
            }
            over.append(recipe)
    adjusted([*alone, *(pair for one in over for pair in one["comparisons"])])
    return alone, over


def _outcomes(of: Mapping[str, Losses], seed: int) -> AdapterOutcomes:
    """The losses by example; a control that is the adapter itself is omitted."""
    labels = [len(one) for one in next(iter(of.values()))[TRAINED]]
    values = {
        adapter: {
            condition: {"loss": np.concatenate([np.asarray(one) for one in rows])}
            for condition, rows in losses.items()
            if condition == TRAINED or rows != losses[TRAINED]
        }
        for adapter, losses in of.items()
    }
    units = np.repeat(np.arange(len(labels)), labels)
    return AdapterOutcomes(values, TRAINED, units, each="row", lower_is_better=True, seed=seed)


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
    titles = {one.name: one.title for one in of}
    pairs = [
        one
        for one in results.get("comparisons", [])
        if one["dataset"] == dataset and one["first"] in single
    ]
    for one in results.get("recipes", []):
        pairs += one["comparisons"] if one["dataset"] == dataset else []
    adapters = {name for one in of for name in (one.name, *one.adapters)}
    kept = [one for one in pairs if one["second"] not in adapters]
    # Results of earlier releases compare with each seed of a recipe; those are no subjects.
    kept += [one for one in pairs if len(of) <= FEW and one["second"] in titles]
    cells = {}
    for one in kept:
        second: str = one["second"]
        key = titles.get(second, second), titles[one["first"]]
        cells[key] = difference_cell(one["difference"], one.get("p_holm"))
    return cells
