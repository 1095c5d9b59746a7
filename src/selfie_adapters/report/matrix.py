"""The cross-test matrix: every adapter on every data set, over one or several evaluations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from selfie_adapters.evaluation.naming.results import position_name
from selfie_adapters.output import visible
from selfie_adapters.report.pieces import Matrix, MatrixCell


@dataclass(frozen=True)
class _MatrixResults:
    """One adapter on one data set. own, data: name and digest; the digest tells equal names apart.

    control: not an adapter; shown below them.
    """

    own: tuple[str, str]
    data: tuple[str, str]
    mean: float
    low: float
    high: float
    control: bool = False


def cross_tests(evaluations: Sequence[tuple[str, Mapping[str, Any]]]) -> list[Matrix]:
    """A matrix per protocol whose evaluations have more than one pair of adapter and data.

    evaluations: (name of the run, content of results.json). Raises KeyError or TypeError for
    results of another form.
    """
    made = []
    for protocol, (title, lower, read) in _PROTOCOLS.items():
        of = [(name, one) for name, one in evaluations if one["protocol"] == protocol]
        found = [pair for name, results in of for pair in read(name, results)]
        pairs = {(one.own, one.data) for one in found if not one.control}
        if len(pairs) > 1:
            made.append(_matrix(title, lower, found))
    return made


def _matrix(title: str, lower_is_better: bool, found: Sequence[_MatrixResults]) -> Matrix:
    """Later results of the same pair replace earlier ones."""
    adapters = dict.fromkeys(one.own for one in found if not one.control)
    controls = dict.fromkeys(one.own for one in found if one.control)
    columns = [*dict.fromkeys(one.data for one in found)]
    by_pair = {(one.own, one.data): one for one in found}
    spans = {}
    for data in columns:
        means = [one.mean for one in by_pair.values() if one.data == data]
        spans[data] = min(means), max(means)
    rows = []
    rows_named = [*adapters, *controls]
    for name, own in zip(_distinct(rows_named), rows_named, strict=True):
        cells: list[MatrixCell | None] = []
        for data in columns:
            one = by_pair.get((own, data))
            if one is None:
                cells.append(None)
                continue
            low, high = spans[data]
            share = 1.0 if high == low else (one.mean - low) / (high - low)
            shade = 1 - share if lower_is_better and high > low else share
            cells.append(
                MatrixCell(f"{one.mean:.3f} [{one.low:.3f}, {one.high:.3f}]", round(shade, 3))
            )
        rows.append((name, cells))
    note = (
        "95 % intervals. "
        + ("Lower is better" if lower_is_better else "Higher is better")
        + "; the better, the stronger the color, column by column. – was not measured."
    )
    return Matrix(f"Cross-tests: {title}", _distinct(columns), rows, note)


def _distinct(keys: Sequence[tuple[str, str]]) -> list[str]:
    """Names, with the digest where one name has several."""
    names = [name for name, _ in keys]
    return [
        visible(name if names.count(name) == 1 else f"{name} ({digest[:8]})")
        for name, digest in keys
    ]


def _loss(_run: str, results: Mapping[str, Any]) -> Iterator[_MatrixResults]:
    inputs = results["inputs"]
    for cell in results["cells"]:
        data = cell["dataset"], str(inputs.get(f"data set {cell['dataset']}", ""))
        own = cell["adapter"], str(inputs.get(f"adapter {cell['adapter']}", ""))
        for condition, name in (
            ("trained", own),
            ("untrained", ("untrained", "")),
            ("shuffled", (f"{own[0]}, shuffled", own[1])),
        ):
            yield _found(name, data, cell["loss"][condition], condition != "trained")


def _naming(_run: str, results: Mapping[str, Any]) -> Iterator[_MatrixResults]:
    settings, inputs = results["settings"], results["inputs"]
    source = str(settings["source"]).rpartition("/")[2]
    digest = str(inputs.get("training_file", ""))
    own = {
        name: (name, str(inputs.get(f"adapter {name}", "")))
        for name in settings.get("adapters") or ()
    } or {"adapter": (str(settings["adapter"]), str(inputs.get("adapter_file", "")))}
    for place in results["positions"]:
        data = f"{source}, {position_name(place['position'])}", digest
        for one in place["conditions"]:
            control = one["condition"] not in own
            name = own.get(one["condition"], (one["condition"], ""))
            yield _found(name, data, one["share"]["right or related"], control)


def _retrieval(_run: str, results: Mapping[str, Any]) -> Iterator[_MatrixResults]:
    settings, inputs = results["settings"], results["inputs"]
    source = str(settings["vectors"] or settings["topics"]).rpartition("/")[2]
    data = f"{source}, {results['counts']['topics']} topics", ""
    for one in results["conditions"]:
        if (name := one["condition"]) in settings["adapters"]:
            yield _found(
                (name, str(inputs.get(f"adapter {name}", ""))), data, one["recall_at"]["1"]
            )


def _found(
    own: tuple[str, str], data: tuple[str, str], found: Mapping[str, Any], control: bool = False
) -> _MatrixResults:
    return _MatrixResults(own, data, found["mean"], found["low"], found["high"], control)


_PROTOCOLS = {
    "loss": ("loss of held-out labels, nats per token", True, _loss),
    "naming": ("share of labels that are right or related", False, _naming),
    "retrieval": ("recall at 1", False, _retrieval),
}
