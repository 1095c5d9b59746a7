"""Conditions compared on the same rows, in every protocol: difference, interval, p value, Holm.

A row is what a condition is measured on; rows of one *unit* (a topic, a vector, a latent) are not
independent, so units are what is resampled. The interval of a difference of zeros and ones is
Newcombe's for paired shares, which is valid at 0 and 1 (statistics.py: where units have several
rows, each counts for as many as its rows are worth); of other numbers it is a bootstrap over units.
The p value is that of a sign-flip test over units, which for zeros and ones is McNemar's exact
test. p values of one family, all comparisons of a results file by the same measure, are adjusted
together (S. Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian Journal
of Statistics 6 (1979) 65).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from selfie_adapters.evaluation.tables import Table, shown
from selfie_adapters.statistics import (
    RESAMPLES,
    Interval,
    PairedTable,
    bootstrap_of_means,
)

Each = Literal["unit", "row"]
"""What counts once in a mean: a unit, whatever its number of rows, or a row."""
SIGNIFICANT = 0.05
METHOD = (
    "differences: paired over units, 95 % (Newcombe's method 10 for 0/1 outcomes, else bootstrap); "
    "p: sign-flip test over units (McNemar's exact test for 0/1), p_holm: Holm within a measure; "
    "of several seeds: bootstrap over units and seeds; "
    "the first beats the second where the difference is above 0 and p_holm is below 0.05"
)
"""How comparisons are made, for results.json."""
DIFFERENCES = "differences with 95 % intervals and Holm's p"
_COLUMNS = 5  # side by side; they fit 80 characters
_EXACT = 14  # units with a difference, up to which all sign flips are tried
_FLIPS_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class Paired:
    """The first condition minus the second, and the two-sided p value of no difference."""

    difference: Interval
    p: float


def paired(
    first: Sequence[float] | np.ndarray,
    second: Sequence[float] | np.ndarray,
    units: Sequence[Hashable] | np.ndarray | None = None,
    each: Each = "unit",
    seed: int = 0,
) -> Paired:
    """Compare two conditions on the same rows: first, second [rows]; units [rows], None: every row.

    Raises ValueError for no rows.
    """
    one, two = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if one.shape != two.shape or not one.size:
        raise ValueError(f"rows {one.shape} and {two.shape} cannot be paired")
    sums, counts = by_unit(one - two, units)
    values = sums / counts if each == "unit" else sums
    outcomes = np.concatenate([one, two])
    binary = bool(np.isin(outcomes, (0.0, 1.0)).all())
    same_shares = not values.any() and outcomes.min() >= 0 and outcomes.max() <= 1
    # A table counts every unit once.
    if (binary or same_shares) and (each == "unit" or counts.max() == 1):
        numbers = np.arange(one.size) if units is None else np.asarray(units)
        interval = PairedTable.of(one, two, numbers).difference()
    else:
        weights = np.ones(len(counts)) if each == "unit" else counts
        columns = np.stack([values, weights], axis=1)
        interval = bootstrap_of_means(columns, lambda m: m[..., 0] / m[..., 1], seed)
    return Paired(interval, sign_flip_p(values, seed))


def by_unit(
    values: np.ndarray, units: Sequence[Hashable] | np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Sum and number of the rows of each unit: [units], [units]."""
    if units is None:
        return values, np.ones(len(values))
    _, inverse = np.unique(np.asarray(units), return_inverse=True)
    return np.bincount(inverse, values), np.bincount(inverse).astype(np.float64)


def sign_flip_p(differences: Sequence[float] | np.ndarray, seed: int = 0) -> float:
    """Two-sided p value of a mean difference of 0: how often random signs give a sum as far from 0.

    differences: [units]. Exact where all are equally large (McNemar's exact test) and where up to
    14 differ from 0; otherwise from 10,000 random flips. 1 where none differs from 0.
    """
    values = np.asarray(differences, dtype=np.float64)
    values = values[values != 0]
    if not values.size:
        return 1.0
    sizes = np.abs(values)
    if np.allclose(sizes, sizes[0]):
        return _sign_test(int((values > 0).sum()), values.size)
    observed = abs(values.sum()) * (1 - 1e-9)
    if values.size <= _EXACT:
        grid = np.indices((2,) * values.size).reshape(values.size, -1) * 2 - 1
        return float((np.abs(values @ grid) >= observed).mean())
    generator = np.random.default_rng(seed)
    as_far, at_once = 0, max(1, _FLIPS_AT_ONCE // values.size)
    for start in range(0, RESAMPLES, at_once):
        count = min(at_once, RESAMPLES - start)
        signs = generator.integers(2, size=(count, values.size)) * 2 - 1
        as_far += int((np.abs(signs @ values) >= observed).sum())
    return (as_far + 1) / (RESAMPLES + 1)


def _sign_test(positive: int, count: int) -> float:
    """Two-sided p value of `positive` of `count` fair coins."""
    fewer = min(positive, count - positive)
    logs = [
        math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1)
        for k in range(fewer + 1)
    ]
    return min(1.0, 2 * sum(math.exp(one - count * math.log(2)) for one in logs))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p values, in the given order."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def comparison(
    first: str, second: str, measure: str, found: Paired, **about: Any
) -> dict[str, Any]:
    """One comparison as results.json holds it; `adjusted` completes it.

    about: what else it is of, such as a block.
    """
    difference = asdict(found.difference)
    return {"first": first, "second": second, "measure": measure, **about} | {
        "difference": difference,
        "p": found.p,
    }


def adjusted(comparisons: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Comparisons with p_holm and first_beats_second; a family is all those of one measure."""
    every = list(comparisons)
    families: dict[str, list[int]] = {}
    for i, one in enumerate(every):
        families.setdefault(one["measure"], []).append(i)
    for members in families.values():
        values = holm([every[i]["p"] for i in members])
        for i, p_holm in zip(members, values, strict=True):
            above = every[i]["difference"]["low"] > 0
            every[i] |= {"p_holm": p_holm, "first_beats_second": above and p_holm < SIGNIFICANT}
    return every


def p_text(comparison: Mapping[str, Any]) -> str:
    """The adjusted p value for a table: "p 0.003"; "" in results of earlier releases."""
    p = comparison.get("p_holm")
    if p is None:
        return ""
    return "p < 0.001" if p < 0.001 else f"p {p:.3f}" if p < 0.1 else f"p {p:.2f}"


def difference_cell(
    difference: Mapping[str, Any] | None, p_holm: float | None, digits: int = 2, factor: float = 1
) -> str:
    """A difference with its interval, and on a line of its own the adjusted p value."""
    lines = [shown(difference, digits, factor, "+"), p_text({"p_holm": p_holm})]
    return "\n".join(filter(None, lines))


def side_by_side(
    title: str,
    corner: str,
    cells: Mapping[tuple[str, str], str],
    caption: str | None = None,
    bold: Collection[str] = (),
) -> Iterator[Table]:
    """(row, column) → cell as tables of a few columns each, in the order of the cells."""
    columns = list(dict.fromkeys(column for _, column in cells))
    for start in range(0, len(columns), _COLUMNS):
        some = columns[start : start + _COLUMNS]
        names = dict.fromkeys(row for row, column in cells if column in some)
        rows = [[name, *(cells.get((name, column), "–") for column in some)] for name in names]
        yield Table(title, [corner, *some], rows, bold, caption, narrow=True)


@dataclass(frozen=True)
class MeasureColumn:
    """How tables show the differences of one measure; the usual factor makes points of shares."""

    heading: str
    digits: int = 1
    factor: float = 100


def difference_tables(
    comparisons: Iterable[Mapping[str, Any]],
    measures: Mapping[str, MeasureColumn],
    title: str | None = None,
    names: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Table]:
    """Comparisons as `adjusted` completes them, one row for each second condition.

    The columns are the measures; where several conditions come first, there is a table for each
    measure, with a column for each of them. measures: those that are shown; comparisons by others
    are omitted. title: for what all of it is about; names: of conditions, where they are shown
    under another one. A control of one condition, "name: control", is shown as the control.
    """
    shown_ones = [one for one in comparisons if one["measure"] in measures]
    firsts = list(dict.fromkeys(one["first"] for one in shown_ones))

    def row(one: Mapping[str, Any]) -> str:
        second: str = one["second"]
        return names.get(second, second.removeprefix(f"{one['first']}: "))

    def cell(one: Mapping[str, Any]) -> str:
        of = measures[one["measure"]]
        return difference_cell(one["difference"], one.get("p_holm"), of.digits, of.factor)

    if len(firsts) == 1:
        corner = f"{names.get(firsts[0], firsts[0])} minus"
        cells = {(row(one), measures[one["measure"]].heading): cell(one) for one in shown_ones}
        yield from side_by_side(title or "Differences", corner, cells, DIFFERENCES)
        return
    for measure, column in measures.items():
        cells = {
            (row(one), names.get(one["first"], one["first"])): cell(one)
            for one in shown_ones
            if one["measure"] == measure
        }
        heading = ": ".join(filter(None, (title, column.heading)))
        yield from side_by_side(heading, "minus", cells, DIFFERENCES)


def over_seeds(
    values: np.ndarray,
    weights: np.ndarray | None = None,
    seed: int = 0,
    minus: np.ndarray | None = None,
) -> Paired:
    """Mean over adapters that differ in their training seed alone, with seeds as a level.

    values: [seeds, units], what each adapter gets at each unit (a sum over its rows, where weights
    state how many rows those are), or differences of two conditions; weights: [units]. minus:
    [other seeds, units], what the adapters of another recipe get: the result is the difference.
    The bootstrap resamples seeds (those of each recipe on their own) and units, since all seeds
    are measured on the same units (A. Owen, "The pigeonhole bootstrap", Annals of Applied
    Statistics 1 (2007) 386). p is the share of resamples on the other side of 0, times 2. Few
    seeds make an interval that is too narrow rather than too wide. Raises ValueError for no values.
    """
    tables = [np.asarray(one, dtype=np.float64) for one in (values, minus) if one is not None]
    if any(table.ndim != 2 or not table.size for table in tables):
        raise ValueError(f"seeds × units are expected, found {[table.shape for table in tables]}")
    units = tables[0].shape[1]
    of = np.ones(units) if weights is None else np.asarray(weights, dtype=np.float64)
    generator = np.random.default_rng(seed)

    def resampled(among: int, count: int) -> np.ndarray:
        """How often each of `among` is drawn in each of `count` resamples."""
        return generator.multinomial(among, np.full(among, 1 / among), size=count)

    found = np.empty(RESAMPLES)
    at_once = max(1, _FLIPS_AT_ONCE // units)
    for start in range(0, RESAMPLES, at_once):
        count = min(at_once, RESAMPLES - start)
        by_seed = [resampled(len(table), count) / len(table) for table in tables]
        drawn = resampled(units, count)
        means = [
            np.einsum("rs,su,ru->r", some, table, drawn, optimize=True)
            for some, table in zip(by_seed, tables, strict=True)
        ]
        found[start : start + count] = (means[0] - sum(means[1:])) / (drawn @ of)
    low, high = np.percentile(found, [2.5, 97.5])
    totals = [table.mean(axis=0).sum() for table in tables]
    mean = float((totals[0] - sum(totals[1:])) / of.sum())
    beyond = min((found <= 0).sum(), (found >= 0).sum())
    p = min(1.0, 2 * (float(beyond) + 1) / (RESAMPLES + 1))
    return Paired(Interval(mean, float(low), float(high), units), p)
