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

from selfie_adapters.adapters import find_adapter_file, load_adapter
from selfie_adapters.adapters.locating import needed_adapter
from selfie_adapters.adapters.specialists import adapter_digest
from selfie_adapters.config.evaluation.naming import NamingSettings
from selfie_adapters.dataset import VectorLabelDataset, load_dataset
from selfie_adapters.dataset.captured import NAME, stated_kind
from selfie_adapters.evaluation.base import Protocol
from selfie_adapters.evaluation.comparing import METHOD, adjusted
from selfie_adapters.evaluation.folder import dataset_hash
from selfie_adapters.evaluation.naming.conditions import Naming, Readers
from selfie_adapters.evaluation.naming.results import report
from selfie_adapters.evaluation.naming.retrieval import (
    Found,
    retrieve,
    retrieve_spelled,
    sampled_groups,
)
from selfie_adapters.evaluation.naming.sections import NamingSection, naming_sections
from selfie_adapters.evaluation.naming.verdicts import ADAPTER, Named, by_subject
from selfie_adapters.evaluation.outcomes import every_comparison
from selfie_adapters.evaluation.recipes import Subject, refuse_copies, subjects_of
from selfie_adapters.evaluation.tables import Table
from selfie_adapters.files.json_lines import write_jsonl
from selfie_adapters.labelling.confidence import Calibration, Confidence
from selfie_adapters.reading.calibration import calibration
from selfie_adapters.statistics import wilson

TABLE = "labels.jsonl"


class NamingRow(msgspec.Struct):
    """One unit of work: labels of a batch (the adapter's with their log-probabilities), losses of
    the scales, or hits of a group."""

    found: list[str | float | list[str | float]]


@dataclass(frozen=True)
class _Measured:
    """What came of one section. named: every condition; adapters: their names among these; of:
    themselves and their recipes."""

    section: NamingSection
    adapters: Sequence[str]
    of: Sequence[Subject]
    named: Sequence[Named]
    retrieval: Sequence[Found]
    scales: Mapping[float, float]

    def summary(self) -> dict[str, Any]:
        section = self.section
        return {
            "dataset": section.section.id,
            "position": section.position,
            "layer": section.layer,
            "untrained_scales": {f"{scale:g}": loss for scale, loss in self.scales.items()},
            "conditions": [one.summary() for one in self.named],
            **by_subject(self.named, self.adapters, self.of),
            "retrieval": [one.summary(self.adapters, self.of) for one in self.retrieval],
        }


@dataclass(frozen=True)
class _Null:
    """Vectors without a concept: an adapter's labels, and which of them are shown."""

    section: NamingSection
    adapter: str
    labels: Sequence[str]
    shown: Sequence[bool]


@dataclass(frozen=True)
class _Subject:
    """An adapter that is measured. confidence: its calibration, where it has one."""

    naming: Naming
    confidence: Confidence | None

    def calibration(self, layer: int, kind: str | None) -> Calibration | None:
        return None if self.confidence is None else self.confidence.at(layer, kind)


class NamingProtocol(Protocol[NamingSettings]):
    """It also writes labels.jsonl, one row per vector and condition: the given name, the generated
    label, the verdict. The same folder may be given other layers later: finished blocks
    are not measured again."""

    settings_class = NamingSettings
    row = NamingRow
    free = ("layers",)

    def inputs(self) -> dict[str, str]:
        """Raises ConfigError without an adapter, and for one adapter under two names."""
        settings = self.settings
        if not settings.adapters:
            named = needed_adapter(settings.adapter, settings.model, "selfie eval naming")
            self.settings = settings.model_copy(update={"adapter": named})
        named = settings.adapters or {ADAPTER: str(self.settings.adapter)}
        self._files = {name: find_adapter_file(path) for name, path in named.items()}
        digests = {name: adapter_digest(file) for name, file in self._files.items()}
        refuse_copies(digests)
        self._dataset = load_dataset(settings.source)
        self._sections = naming_sections(self._dataset, settings)
        keys = {name: f"adapter {name}" if settings.adapters else "adapter_file" for name in named}
        return {
            **{keys[name]: digest for name, digest in digests.items()},
            "training_file": dataset_hash(self._dataset),
        }

    def measure(self) -> dict[str, Any]:
        """Raises DataError for vectors of another width than the model's."""
        self.check_width(self._dataset, self.settings.source)
        adapters = {
            name: load_adapter(file, self.model.device) for name, file in self._files.items()
        }
        self._of = subjects_of(adapters)
        self._measured = [
            _Subject(
                Naming(
                    self.model,
                    adapter,
                    no_concept=_no_concept(self._dataset),
                    seed=self.settings.seed,
                    keep=self._keep,
                    progress=self.progress,
                    name=name,
                ),
                calibration(self._files[name]),
            )
            for name, adapter in adapters.items()
        ]
        measured = [self._measure(one) for one in self._sections if not one.is_null]
        nulls = [
            self._without_concept(one, section)
            for one in self._measured
            for section in self._sections
            if section.is_null
        ]
        write_jsonl(self.folder.folder / TABLE, _rows(measured, nulls))
        sections, positions = [one.summary() for one in measured], _pooled(measured)
        for several in (sections, positions):  # blocks are one family, all blocks together another
            adjusted(pair for one in several for pair in _every_comparison(one))
        return {
            "interval": "95 %; shares: Wilson, over topics; " + METHOD,
            "no_concept": self._stated(lambda one: one.naming.no_concept),
            "calibrated": self._stated(lambda one: one.confidence is not None),
            "sections": sections,
            "positions": positions,
            "without_concept": self._stated(
                lambda of: _without_concept(
                    [one for one in nulls if one.adapter == of.naming.adapter_name]
                )
            )
            if nulls
            else None,
        }

    def _stated(self, of: Callable[[_Subject], Any]) -> Any:
        """Something of the adapter; of several a mapping with their names."""
        if not self.settings.adapters:
            return of(self._measured[0])
        return {one.naming.adapter_name: of(one) for one in self._measured}

    def _keep(self, unit: str, count: int, make: Callable[[], list[Any]]) -> list[Any]:
        return self.folder.values(unit, "found", count, make)

    def _without_concept(self, of: _Subject, section: NamingSection) -> _Null:
        # A reading takes tokens inside a sentence for the kind "name".
        labels = of.naming.labels(section.unit, section.vectors, (section.layer, NAME))
        shown = of.naming.shown(labels, of.calibration(section.layer, NAME))
        return _Null(section, of.naming.adapter_name, [label.text for label in labels], shown)

    def _measure(self, section: NamingSection) -> _Measured:
        training, choosing = section.known(section.training), section.known(section.choosing)
        place = section.layer, stated_kind(section.section.metadata)
        first, *more = self._measured
        readers = first.naming.readers(training, choosing, section.unit, place)
        found = self._named(first, readers, section)
        retrieval = self._retrieval(first, readers, section)
        for one in more:
            alone = one.naming.alone(place)
            # The controls of adapters come before what all of them share.
            count = len(found) - len(readers.others)
            found[count:count] = self._named(one, alone, section)
            theirs = self._retrieval(one, alone, section)
            retrieval = [a.joined(b) for a, b in zip(retrieval, theirs, strict=True)]
        names = [one.naming.adapter_name for one in self._measured]
        return _Measured(section, names, self._of, found, retrieval, readers.untrained_scales)

    def _named(self, of: _Subject, readers: Readers, section: NamingSection) -> list[Named]:
        trust = of.calibration(section.layer, readers.adapter.place[1])
        return of.naming.name(readers, section.vectors, section.topics, section.unit, trust)

    def _retrieval(self, of: _Subject, readers: Readers, section: NamingSection) -> list[Found]:
        names, vectors = [topic.title for topic in section.topics], section.vectors
        groups = sampled_groups(names, self.settings.retrieval, self.settings.seed)
        if not groups:
            return []
        plain = retrieve(of.naming, readers, vectors, names, groups, section.unit)
        rows = [row for group in groups for row in group]
        spelled = retrieve_spelled(
            of.naming, readers, vectors[rows], [names[row] for row in rows], section.unit
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
                **by_subject(named, parts[0].adapters, parts[0].of),
            }
        )
    return results


def _every_comparison(place: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for one in (place, *place.get("retrieval", ())):
        yield from every_comparison(one)


def _without_concept(nulls: Sequence[_Null]) -> dict[str, Any]:
    """How many vectors without a concept show a label of the adapter, by block and overall.

    Shown is what is neither the label for no concept nor withheld by the calibration. The baselines
    cannot be silent: they always show one.
    """

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
            about = {"condition": null.adapter, "name": None, "generated": label, "shown": shown}
            yield row(null.section, number, about)
