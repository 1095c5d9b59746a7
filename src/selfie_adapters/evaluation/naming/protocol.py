"""The naming protocol: does an adapter name the concepts of held-out vectors, block by block?

Every section of a training file (a block and a position kind) is labelled by the adapter and by
its controls; a section whose vectors hold no concept is asked whether a label is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

import msgspec
from torch import Tensor

from selfie_adapters.adapters import find_adapter_file, load_adapter
from selfie_adapters.adapters.locating import needed_adapter
from selfie_adapters.adapters.specialists import adapter_digest
from selfie_adapters.config.evaluation.naming import NamingSettings
from selfie_adapters.dataset import VectorLabelDataset, load_dataset
from selfie_adapters.dataset.captured import NAME, stated_kind
from selfie_adapters.evaluation.base import Protocol
from selfie_adapters.evaluation.comparing import METHOD, adjusted
from selfie_adapters.evaluation.folder import dataset_hash
from selfie_adapters.evaluation.naming.conditions import ADAPTER, Naming, Readers
from selfie_adapters.evaluation.naming.results import report
from selfie_adapters.evaluation.naming.retrieval import (
    Found,
    retrieve,
    retrieve_spelled,
    sampled_groups,
)
from selfie_adapters.evaluation.naming.sections import NamingSection, naming_sections
from selfie_adapters.evaluation.naming.verdicts import Named, comparisons
from selfie_adapters.evaluation.tables import Table
from selfie_adapters.files.json_lines import write_jsonl
from selfie_adapters.labelling.confidence import Calibration
from selfie_adapters.reading.calibration import calibration
from selfie_adapters.statistics import wilson

TABLE = "labels.jsonl"


class NamingRow(msgspec.Struct):
    """One unit of work: labels of a batch (the adapter's with their log-probabilities), losses of
    the scales, or hits of a group."""

    found: list[str | float | list[str | float]]


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


class NamingProtocol(Protocol[NamingSettings]):
    """It also writes labels.jsonl, one row per vector and condition: the given name, the generated
    label, the verdict. The same folder may be given other layers later: finished blocks
    are not measured again."""

    settings_class = NamingSettings
    row = NamingRow
    free = ("layers",)

    def inputs(self) -> dict[str, str]:
        settings = self.settings
        command = "selfie eval naming"
        named = needed_adapter(settings.adapter, settings.model, command)
        self.settings = settings.model_copy(update={"adapter": named})
        self._adapter_file = find_adapter_file(named)
        self._dataset = load_dataset(settings.source)
        self._sections = naming_sections(self._dataset, settings)
        return {
            "adapter_file": adapter_digest(self._adapter_file),
            "training_file": dataset_hash(self._dataset),
        }

    def measure(self) -> dict[str, Any]:
        """Raises DataError for vectors of another width than the model's."""
        self.check_width(self._dataset, self.settings.source)
        self._confidence = calibration(self._adapter_file)
        self._naming = Naming(
            self.model,
            load_adapter(self._adapter_file, self.model.device),
            no_concept=_no_concept(self._dataset),
            seed=self.settings.seed,
            keep=self._keep,
            progress=self.progress,
        )
        measured = [self._measure(one) for one in self._sections if not one.is_null]
        nulls = [self._without_concept(one) for one in self._sections if one.is_null]
        write_jsonl(self.folder.folder / TABLE, _rows(measured, nulls))
        sections, positions = [one.summary() for one in measured], _pooled(measured)
        for several in (sections, positions):  # blocks are one family, all blocks together another
            adjusted(pair for one in several for pair in one["comparisons"])
        return {
            "interval": "95 %; shares: Wilson, over topics; " + METHOD,
            "no_concept": self._naming.no_concept,
            "calibrated": self._confidence is not None,
            "sections": sections,
            "positions": positions,
            "without_concept": _without_concept(nulls),
        }

    def _keep(self, unit: str, count: int, make: Callable[[], list[Any]]) -> list[Any]:
        return self.folder.values(unit, "found", count, make)

    def _without_concept(self, section: NamingSection) -> _Null:
        # A reading takes tokens inside a sentence for the kind "name".
        labels = self._naming.labels(section.unit, section.vectors, (section.layer, NAME))
        shown = self._naming.shown(labels, self._calibration(section.layer, NAME))
        return _Null(section, [label.text for label in labels], shown)

    def _calibration(self, layer: int, kind: str | None) -> Calibration | None:
        return None if self._confidence is None else self._confidence.at(layer, kind)

    def _measure(self, section: NamingSection) -> _Measured:
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
        groups = sampled_groups(names, self.settings.retrieval, self.settings.seed)
        if not groups:
            return []
        plain = retrieve(self._naming, readers, vectors, names, groups, section.unit)
        rows = [row for group in groups for row in group]
        spelled = retrieve_spelled(
            self._naming, readers, vectors[rows], [names[row] for row in rows], section.unit
        )
        return [plain] if spelled is None else [plain, spelled]

    @classmethod
    def report(cls, results: Mapping[str, Any]) -> Iterator[Table | str]:
        return report(results)


def _no_concept(dataset: VectorLabelDataset) -> str | None:
    stated = {section.metadata.get("no_concept") for section in dataset.sections}
    texts = [one for one in stated if isinstance(one, str)]
    return texts[0] if len(texts) == 1 else None


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


def _rows(measured: Sequence[_Measured], nulls: Sequence[_Null]) -> Iterator[dict[str, Any]]:
    """One row per vector and condition."""

    def row(section: NamingSection, number: int, about: dict[str, Any]) -> dict[str, Any]:
        return {
            "dataset": section.section.id,
            "layer": section.layer,
            "position": section.position,
            "index": section.measured[number].row,
            **about,
        }

    for one in measured:
        for named in one.named:
            for number, about in enumerate(named.rows()):
                yield row(one.section, number, about)
    for null in nulls:
        for number, (label, shown) in enumerate(zip(null.labels, null.shown, strict=True)):
            about = {"condition": ADAPTER, "name": None, "generated": label, "shown": shown}
            yield row(null.section, number, about)
