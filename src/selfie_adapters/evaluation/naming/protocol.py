"""The naming protocol: does an adapter name the concepts of held-out vectors, block by block?

Every section of a training file (a block and a position kind) is labelled by the adapter and by
its controls; a section whose vectors hold no concept is asked whether a label is shown.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import msgspec
from torch import Tensor

from selfie_adapters.adapters import find_adapter_file, load_adapter
from selfie_adapters.adapters.specialists import adapter_digest
from selfie_adapters.config.evaluation.naming import NamingSettings
from selfie_adapters.dataset import VectorLabelDataset, load_dataset
from selfie_adapters.dataset.position_kind import NAME, stated_kind
from selfie_adapters.errors import ConfigError, DataError
from selfie_adapters.evaluation.folder import EvaluationFolder
from selfie_adapters.evaluation.inputs import dataset_hash
from selfie_adapters.evaluation.naming.conditions import ADAPTER, Naming, Readers
from selfie_adapters.evaluation.naming.retrieval import (
    Found,
    retrieve,
    retrieve_spelled,
    sampled_groups,
)
from selfie_adapters.evaluation.naming.sections import NamingSection, naming_sections
from selfie_adapters.evaluation.naming.verdicts import Named, comparisons
from selfie_adapters.evaluation.spoken_labels import Progress, silent
from selfie_adapters.files import atomic_path
from selfie_adapters.labelling.confidence import Calibration, Confidence
from selfie_adapters.model import FrozenModel, load_model
from selfie_adapters.model.fingerprint import weights_digest
from selfie_adapters.reading.read import calibration
from selfie_adapters.statistics import wilson

TABLE = "labels.jsonl"


class NamingRow(msgspec.Struct):
    """One unit of work: labels of a batch (the adapter's with their log-probabilities), losses of
    the scales, or hits of a group."""

    found: list[str | float | list[str | float]]


def run_naming(
    settings: NamingSettings,
    folder: str | Path,
    model: FrozenModel | None = None,
    progress: Progress = silent,
) -> Path:
    """Run the protocol, or resume it; returns the path of results.json.

    The same folder may be given other layers later: finished blocks are not measured again.
    Beside it comes labels.jsonl, one row per vector and condition: the given name, the generated
    label, the verdict. Raises what reading the inputs raises; DataError for vectors of another
    width than the model's; ConfigError if the folder holds another evaluation.
    """
    dataset = load_dataset(settings.source)
    sections = naming_sections(dataset, settings)
    if settings.adapter is None:
        raise ConfigError("adapter: the naming protocol measures one; name it.")
    adapter_file = find_adapter_file(settings.adapter)
    inputs = {"adapter_file": adapter_digest(adapter_file), "training_file": dataset_hash(dataset)}
    # Units of work are of one block: other layers in the same folder reuse what is there.
    kept = EvaluationFolder(folder, "naming", settings, inputs, free=("layers",), kind=NamingRow)
    model = model or load_model(settings.model, settings.dtype, settings.device)
    kept.also_depends_on("model_weights", weights_digest(model))
    if dataset.d_model != model.d_model:
        raise DataError(
            f"{settings.source}: vectors of width {dataset.d_model}; the model {model.name} has "
            f"d_model {model.d_model}. Use the model the vectors come from."
        )
    naming = Naming(
        model,
        load_adapter(adapter_file, model.device),
        no_concept=_no_concept(dataset),
        seed=settings.seed,
        keep=_keeping(kept),
        progress=progress,
    )
    run = _Run(settings, naming, calibration(adapter_file))
    measured = [run.measure(one) for one in sections if not one.is_null]
    nulls = [run.without_concept(one) for one in sections if one.is_null]
    _write_rows(kept.folder / TABLE, measured, nulls)
    return kept.finish(
        {
            "interval": "95 %; shares: Wilson, over topics; differences: paired, Newcombe's "
            "method 10; the first beats the second where it is above 0",
            "no_concept": naming.no_concept,
            "calibrated": run.confidence is not None,
            "sections": [one.summary() for one in measured],
            "positions": _pooled(measured),
            "without_concept": _without_concept(nulls),
        }
    )


def _no_concept(dataset: VectorLabelDataset) -> str | None:
    stated = {section.metadata.get("no_concept") for section in dataset.sections}
    texts = [one for one in stated if isinstance(one, str)]
    return texts[0] if len(texts) == 1 else None


def _keeping(kept: EvaluationFolder) -> Callable[[str, int, Callable[[], list[Any]]], list[Any]]:
    def keep(unit: str, count: int, make: Callable[[], list[Any]]) -> list[Any]:
        if unit not in kept.rows:
            kept.add(unit, {"found": make()})
        found = kept.rows[unit]["found"]
        if len(found) != count:
            raise kept.damaged(unit, f"has {len(found)} results; {count} are expected")
        return found

    return keep


class _Measured:
    """What came of one section."""

    def __init__(
        self,
        section: NamingSection,
        named: Sequence[Named],
        retrieval: Sequence[Found],
        scales: dict[float, float],
    ) -> None:
        self.section, self.named, self.retrieval, self.scales = section, named, retrieval, scales

    def summary(self) -> dict[str, Any]:
        section = self.section
        return {
            "dataset": section.section.id,
            "position": section.position,
            "layer": section.layer,
            "untrained_scales": {f"{scale:g}": loss for scale, loss in self.scales.items()},
            "conditions": [one.summary() for one in self.named],
            "comparisons": comparisons(self.named[0], self.named[1:]),
            "retrieval": [one.summary() for one in self.retrieval],
        }


@dataclass(frozen=True)
class _Null:
    """Vectors without a concept: the adapter's labels, and which of them are shown."""

    section: NamingSection
    labels: Sequence[str]
    shown: Sequence[bool]


class _Run:
    def __init__(
        self, settings: NamingSettings, naming: Naming, confidence: Confidence | None
    ) -> None:
        self._settings, self._naming, self.confidence = settings, naming, confidence

    def without_concept(self, section: NamingSection) -> _Null:
        # A reading takes tokens inside a sentence for the kind "name".
        labels = self._naming.labels(section.unit, section.vectors, (section.layer, NAME))
        shown = self._naming.shown(labels, self._calibration(section.layer, NAME))
        return _Null(section, [label.text for label in labels], shown)

    def _calibration(self, layer: int, kind: str | None) -> Calibration | None:
        return None if self.confidence is None else self.confidence.at(layer, kind)

    def measure(self, section: NamingSection) -> _Measured:
        vectors, topics = section.vectors, section.topics
        training, choosing = section.known(section.training), section.known(section.choosing)
        kind = stated_kind(section.section.metadata)
        readers = self._naming.readers(training, choosing, section.unit, (section.layer, kind))
        trust = self._calibration(section.layer, kind)
        named = self._naming.name(readers, vectors, topics, section.unit, trust)
        retrieval = self._retrieval(section, readers, vectors)
        return _Measured(section, named, retrieval, readers.untrained_scales)

    def _retrieval(self, section: NamingSection, readers: Readers, vectors: Tensor) -> list[Found]:
        names = [topic.title for topic in section.topics]
        groups = sampled_groups(names, self._settings.retrieval, self._settings.seed)
        if not groups:
            return []
        plain = retrieve(self._naming, readers, vectors, names, groups, section.unit)
        rows = [row for group in groups for row in group]
        spelled = retrieve_spelled(
            self._naming, readers, vectors[rows], [names[row] for row in rows], section.unit
        )
        return [plain] if spelled is None else [plain, spelled]


def _pooled(measured: Sequence[_Measured]) -> list[dict[str, Any]]:
    """All blocks of a position kind together: a topic counts once, as the mean over its vectors."""
    results = []
    for position, group in groupby(measured, key=lambda one: one.section.position):
        parts = list(group)
        columns = zip(*(one.named for one in parts), strict=True)
        named = [Named.pooled(column) for column in columns]
        results.append(
            {
                "position": position,
                "layers": [one.section.layer for one in parts],
                "conditions": [one.summary() for one in named],
                "comparisons": comparisons(named[0], named[1:]),
            }
        )
    return results


def _without_concept(nulls: Sequence[_Null]) -> dict[str, Any] | None:
    """How many vectors without a concept show a label of the adapter, by block and overall.

    Shown is what is neither the label for no concept nor withheld by the calibration. The baselines
    cannot be silent: they always show one.
    """
    if not nulls:
        return None

    def counted(some: Sequence[_Null]) -> dict[str, Any]:
        shown = [one for null in some for one in null.shown]
        return {"vectors": len(shown), "shown": asdict(wilson(sum(shown), len(shown)))}

    by_layer = [
        {"dataset": one.section.section.id, "layer": one.section.layer, **counted([one])}
        for one in nulls
    ]
    return {**counted(nulls), "by_layer": by_layer}


def _write_rows(path: Path, measured: Sequence[_Measured], nulls: Sequence[_Null]) -> None:
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:

        def write(section: NamingSection, number: int, row: dict[str, Any]) -> None:
            place = {
                "dataset": section.section.id,
                "layer": section.layer,
                "position": section.position,
                "index": section.measured[number].row,
            }
            file.write(json.dumps({**place, **row}, ensure_ascii=False) + "\n")

        for one in measured:
            for named in one.named:
                for number, row in enumerate(named.rows()):
                    write(one.section, number, row)
        for null in nulls:
            for number, label in enumerate(null.labels):
                row = {"condition": ADAPTER, "name": None, "generated": label}
                write(null.section, number, {**row, "shown": null.shown[number]})
