"""Losses of conditions, adapters and recipes compared, and the tables that show them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from typing import Any

import numpy as np

from selfie_adapters.config.evaluation.loss import LossSettings
from selfie_adapters.evaluation.comparing import (
    Paired,
    adjusted,
    comparison,
    over_seeds,
    p_text,
    paired,
)
from selfie_adapters.evaluation.tables import Table, shown
from selfie_adapters.statistics import Interval, bootstrap_of_means

Losses = Mapping[str, Sequence[Sequence[float]]]
"""Name of a condition → per vector the losses of its labels, nats per token."""
Cells = Mapping[tuple[str, str], Losses]
"""(adapter, data set) → losses."""
TRAINED, IDENTITY = "trained", "identity"


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
    """Losses by adapter and data set, what beats what, and recipes with several seeds."""
    controls = list(
        dict.fromkeys(name for cell in results["cells"] for name in cell["loss"] if name != TRAINED)
    )
    rows = []
    for cell in results["cells"]:
        share, loss = cell["bias_share"], cell["loss"]
        means = [f"{loss[name]['mean']:.2f}" if name in loss else "–" for name in controls]
        bias = "–" if share is None else f"{share['mean']:.2f}"
        rows.append([cell["adapter"], cell["dataset"], shown(loss[TRAINED]), *means, bias])
    yield Table(
        "Loss of held-out labels, nats per token (95 % intervals of controls: results.json)",
        ["adapter", "data set", TRAINED, *controls, "bias share"],
        rows,
        names=2,
    )
    yield from _compared(results.get("comparisons", []))  # not in those of earlier releases
    for one in results.get("recipes", []):
        seeds = ", ".join(f"{mean:.2f}" for mean in one["by_seed"])
        yield (
            f"{one['recipe']} on {one['dataset']}, {len(one['adapters'])} seeds: "
            f"{shown(one['loss'])} nats per token ({seeds})"
        )
        yield from _compared(one["comparisons"])


def _compared(pairs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """One line per adapter and data set: what it beats, and what it does not."""
    groups: dict[tuple[str, str | None], list[Mapping[str, Any]]] = {}
    for pair in pairs:
        groups.setdefault((pair["first"], pair.get("dataset")), []).append(pair)
    for (first, dataset), several in groups.items():
        where = "" if dataset is None else f" on {dataset}"
        for beats, verb in ((True, "beats"), (False, "does NOT beat")):
            found = [
                f"{one['second']} {shown(one['difference'], sign='+')} {p_text(one)}"
                for one in several
                if one["first_beats_second"] == beats
            ]
            if found:
                yield f"{first}{where} {verb}, nats saved per token: {'; '.join(found)}"
