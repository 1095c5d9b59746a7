"""The labels of one SAE, from whatever source: a file, or an export of Neuronpedia.

Large ones are kept in columns, which take a fraction of the memory of objects.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, pairwise
from typing import Any

import numpy as np

from selfie_adapters.config.types import SPLITS, Split
from selfie_adapters.files.columns import Strings

Explainer = tuple[str | None, str | None]
"""Who wrote a label: (explanationModelName, typeName); None where the source does not state it."""
NOBODY: Explainer = (None, None)


class LabelColumns(Mapping[int, list[str]]):
    """Latent → its labels, in the order in which they were added. Read it once it is complete."""

    def __init__(self) -> None:
        self._latents, self._texts = array("q"), Strings()
        self._known: dict[Explainer, int] = {}
        self._explainers = array("i")

    def add(self, latent: int, text: str, explainer: Explainer = NOBODY) -> None:
        self._latents.append(latent)
        self._texts.append(text)
        self._explainers.append(self._known.setdefault(explainer, len(self._known)))

    @cached_property
    def _order(self) -> Sequence[int] | np.ndarray:
        """Places of the labels by latent."""
        latents = np.asarray(self._latents)
        if bool((latents[1:] >= latents[:-1]).all()):  # as most files have them
            return range(len(latents))
        return np.argsort(latents, kind="stable")

    @cached_property
    def _sorted(self) -> np.ndarray:
        """Latent of each label, in ascending order."""
        latents = np.asarray(self._latents)
        return latents if isinstance(self._order, range) else latents[self._order]

    @cached_property
    def _starts(self) -> np.ndarray:
        """Where each latent begins in `_sorted`."""
        first = np.ones(len(self._sorted), dtype=bool)
        first[1:] = self._sorted[1:] != self._sorted[:-1]
        return np.flatnonzero(first)

    @property
    def count(self) -> int:
        """How many labels there are."""
        return len(self._texts)

    def texts(self) -> Iterator[str]:
        """All labels, as they were added."""
        return iter(self._texts)

    def repeats(self) -> Iterator[int]:
        """Latents with more than one label."""
        return (latent for latent, places in self._groups() if len(places) > 1)

    def rows(self) -> Iterator[tuple[int, list[tuple[str, Explainer]]]]:
        """Each latent, ascending, with its labels and who wrote them."""
        known = [*self._known]
        for latent, places in self._groups():
            yield latent, [(self._texts[one], known[self._explainers[one]]) for one in places]

    def of(self, explainers: Collection[Explainer]) -> LabelColumns:
        """The labels by some explainers."""
        if {*self._known} <= {*explainers}:
            return self
        found = LabelColumns()
        for latent, rows in self.rows():
            for text, who in rows:
                if who in explainers:
                    found.add(latent, text, who)
        return found

    @property
    def explainers(self) -> Mapping[int, list[Explainer]]:
        """Who wrote each latent's labels; empty if no row states it."""
        return {} if {*self._known} <= {NOBODY} else _Explainers(self)

    def __getitem__(self, latent: int) -> list[str]:
        return [self._texts[place] for place in self.places(latent)]

    def explainers_of(self, latent: int) -> list[Explainer]:
        known = [*self._known]
        return [known[self._explainers[place]] for place in self.places(latent)]

    def places(self, latent: int) -> list[int]:
        start, end = np.searchsorted(self._sorted, [latent, latent + 1])
        if start == end:
            raise KeyError(latent)
        return [*map(int, self._order[start:end])]

    def _groups(self) -> Iterator[tuple[int, list[int]]]:
        for start, end in pairwise(chain(self._starts, [len(self._sorted)])):
            yield int(self._sorted[start]), [*map(int, self._order[start:end])]

    def __iter__(self) -> Iterator[int]:
        return map(int, self._sorted[self._starts])

    def __len__(self) -> int:
        """How many latents have a label."""
        return len(self._starts)


class _Explainers(Mapping[int, list[Explainer]]):
    def __init__(self, table: LabelColumns) -> None:
        self._table = table

    def __getitem__(self, latent: int) -> list[Explainer]:
        return self._table.explainers_of(latent)

    def __iter__(self) -> Iterator[int]:
        return iter(self._table)

    def __len__(self) -> int:
        return len(self._table)


class SplitTable(Mapping[int, Split]):
    """Latent → its split."""

    def __init__(self, latents: array[int], splits: bytearray) -> None:
        """splits: the place of each latent's split in SPLITS; latents occur once."""
        order = np.argsort(np.asarray(latents), kind="stable")
        self._latents = np.asarray(latents)[order]
        self._splits = np.frombuffer(splits, np.uint8)[order]

    def __getitem__(self, latent: int) -> Split:
        place = int(np.searchsorted(self._latents, latent))
        if place == len(self) or self._latents[place] != latent:
            raise KeyError(latent)
        return SPLITS[self._splits[place]]

    def __iter__(self) -> Iterator[int]:
        return map(int, self._latents)

    def __len__(self) -> int:
        return len(self._latents)


@dataclass(frozen=True)
class LabelSet:
    """Labels by latent, with where they come from and what was dropped on the way."""

    labels: Mapping[int, list[str]]
    """Latent → its labels, in the order of the source, never empty."""
    splits: Mapping[int, Split] = field(default_factory=dict)
    """Split of each latent; empty if the source has none."""
    origin: dict[str, Any] = field(default_factory=dict)
    """Plain JSON values for a dataset's metadata: where the labels come from and by what rule."""
    report: list[str] = field(default_factory=list)
    """Lines for the reader, with counts: what there is, what was dropped and why."""
    explainers: Mapping[int, list[Explainer]] = field(default_factory=dict)
    """Who wrote each latent's labels; empty for label files that do not state it."""

    def __len__(self) -> int:
        """How many labels there are, over all latents."""
        return sum(map(len, self.labels.values()))

    def restrict(self, d_sae: int) -> LabelSet:
        """Without latents that an SAE of `d_sae` latents does not have; the report counts them."""
        outside = sorted(index for index in self.labels if not 0 <= index < d_sae)
        if not outside:
            return self
        shown = ", ".join(map(str, outside[:5])) + (", …" if len(outside) > 5 else "")
        line = f"{len(outside)} latents out of range (the SAE has {d_sae}): {shown}; dropped"
        gone = set(outside)
        return replace(
            self,
            labels={i: texts for i, texts in self.labels.items() if i not in gone},
            splits={i: split for i, split in self.splits.items() if i not in gone},
            report=[*self.report, line],
            explainers={i: who for i, who in self.explainers.items() if i not in gone},
        )
