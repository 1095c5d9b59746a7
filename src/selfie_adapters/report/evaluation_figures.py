"""The figures of a finished evaluation of one adapter, each alongside its controls."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfie_adapters.adapters.specialists import adapter_digest
from selfie_adapters.errors import ConfigError, DataError, nearest
from selfie_adapters.evaluation.naming.results import adapters_of
from selfie_adapters.files import read_json, sha256

_FINISHED = "Give the folder of a finished selfie eval loss, naming or retrieval."


@dataclass(frozen=True)
class Figure:
    """One number with its 95 % interval. own: of the adapter; others are controls and baselines.

    dataset: name or file name; split: which vectors; vectors: how many; metric: what is measured,
    with its unit.
    """

    protocol: str
    dataset: str
    split: str
    vectors: int
    metric: str
    condition: str
    own: bool
    value: float
    low: float
    high: float


def evaluation_figures(folder: str | Path, adapter_file: Path) -> list[Figure]:
    """The figures that an evaluation's results.json holds about the adapter in `adapter_file`.

    Those of the adapter come before those of its controls. Raises MissingFileError or DataError for
    a folder without finished results, ConfigError for results of another adapter and for a protocol
    whose figures are not put on a card.
    """
    file = Path(folder) / "results.json"
    results = read_json(file, _FINISHED)
    own = {sha256(adapter_file), adapter_digest(adapter_file)}
    try:
        protocol = results["protocol"]
        inputs = dict(results["inputs"])
        if protocol not in _READERS:
            raise ConfigError(
                f"{file}: figures of the protocol {protocol!r:.40} are not put on a card. "
                f"{nearest(str(protocol), _READERS)}"
            )
        names = {key.removeprefix("adapter ") for key, value in inputs.items() if value in own}
        if not names:
            raise ConfigError(
                f"{file}: an evaluation of other adapters: none has the content of {adapter_file}. "
                "Evaluate this one, or name the file that was evaluated."
            )
        found = [_checked(one) for one in _READERS[protocol](results, names)]
    except ConfigError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        raise DataError(
            f"{file}: not the results of an evaluation ({type(error).__name__}: {error!s:.100}). "
            f"{_FINISHED}"
        ) from error
    return sorted(found, key=lambda one: not one.own)  # stable: otherwise in the file's order


def _loss(results: Mapping[str, Any], names: set[str]) -> Iterator[Figure]:
    for cell in results["cells"]:
        if cell["adapter"] not in names:
            continue
        for condition, interval in cell["loss"].items():
            of = _Of(results, cell["dataset"], cell["vectors"], condition, condition == "trained")
            yield of.figure("loss (nats per token)", interval)


def _naming(results: Mapping[str, Any], names: set[str]) -> Iterator[Figure]:
    dataset = _base_name(results["settings"]["source"])
    adapters = {*adapters_of(results)}
    own = names & adapters or adapters  # the only adapter has no name
    others = adapters - own
    controls = tuple(f"{one}: " for one in others)
    for place in results["positions"]:
        layers = ", ".join(str(int(layer)) for layer in place["layers"])
        at = f" at {place['position']}" if place["position"] else ""
        for one in place["conditions"]:
            name, where = one["condition"], f"{dataset}, layers {layers}{at}"
            if name in others or name.startswith(controls):
                continue
            of = _Of(results, where, one["vectors"], name, name in own)
            for measure in ("right", "right or related"):
                yield of.figure(f"labels that are {measure} (share)", one["share"][measure])


def _retrieval(results: Mapping[str, Any], names: set[str]) -> Iterator[Figure]:
    dataset = _base_name(results["settings"]["vectors"] or results["settings"]["topics"])
    others = {*results["settings"]["adapters"], *results["settings"]["labels"]} - names
    for one in results["conditions"]:
        if one["condition"] in others:
            continue
        name, where = one["condition"], f"{dataset} among {int(results['counts']['topics'])} topics"
        of = _Of(results, where, one["queries"], name, name in names)
        for k in ("1", "10"):
            yield of.figure(f"recall at {k} (share)", one["recall_at"][k])


_READERS: dict[str, Callable[[Mapping[str, Any], set[str]], Iterator[Figure]]] = {
    "loss": _loss,
    "naming": _naming,
    "retrieval": _retrieval,
}


@dataclass(frozen=True)
class _Of:
    """What was measured, and of which condition: all of a figure but its number."""

    results: Mapping[str, Any]
    dataset: str
    vectors: int
    condition: str
    own: bool

    def figure(self, metric: str, interval: Mapping[str, Any]) -> Figure:
        return Figure(
            protocol=self.results["protocol"],
            dataset=self.dataset,
            split=self.results["settings"]["split"],
            vectors=self.vectors,
            metric=metric,
            condition="this adapter" if self.own else self.condition,
            own=self.own,
            value=interval["mean"],
            low=interval["low"],
            high=interval["high"],
        )


def _checked(figure: Figure) -> Figure:
    """Raise TypeError or ValueError for values of other kinds than a card can hold."""
    for name in ("dataset", "split", "condition"):
        if not isinstance(getattr(figure, name), str):
            raise TypeError(f"{name} is {getattr(figure, name)!r:.40}")
    for name in ("value", "low", "high", "vectors"):
        number = getattr(figure, name)
        if isinstance(number, bool) or not math.isfinite(number):
            raise ValueError(f"{name} of {figure.condition} is {number!r:.40}")
    return figure


def _base_name(path: str) -> str:
    """A data set by its file's name alone: the card is public, folders of this machine are not."""
    return Path(path).name
