"""What can be labelled: a training file's vectors, or a file of vectors alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from selfie_adapters.config.lists import parse_selection
from selfie_adapters.dataset.captured import stated_kind
from selfie_adapters.dataset.load import VectorLabelDataset, load_dataset
from selfie_adapters.dataset.schema import Split
from selfie_adapters.dataset.vectors import open_directions
from selfie_adapters.errors import ConfigError


class Rows(Protocol):
    """Something that gives rows by number: a tensor, or a file that is read as it is asked."""

    @property
    def shape(self) -> Sequence[int]: ...

    def __getitem__(self, rows: Tensor, /) -> Tensor: ...


@dataclass(frozen=True)
class LabelSource:
    """Vectors in a fixed order, each with what identifies it in the output."""

    dataset: VectorLabelDataset | None
    tensor: Rows | None  # [rows, d_model] where there is no dataset
    places: list[tuple[int, int]]  # (section, row)
    tensor_layer: int | None = None  # which block's, where it is known
    row_layers: tuple[int, ...] | None = None  # each row's, where they are stored by layer

    @classmethod
    def of_rows(cls, rows: Rows, layer: int | None = None) -> LabelSource:
        """Every row of a [rows, d_model] tensor."""
        return cls(None, rows, [(0, row) for row in range(rows.shape[0])], layer)

    def __len__(self) -> int:
        return len(self.places)

    @property
    def d_model(self) -> int:
        if self.dataset is not None:
            return self.dataset.d_model
        assert self.tensor is not None
        return self.tensor.shape[1]

    def vectors(self, start: int, stop: int) -> Tensor:
        """Vectors start to stop - 1: [n, d_model], float32."""
        return self.at(range(start, min(stop, len(self))))

    def at(self, positions: range | list[int]) -> Tensor:
        """Vectors at these positions of the order: [n, d_model], float32."""
        places = [self.places[position] for position in positions]
        section, row = torch.tensor(places, dtype=torch.int64).reshape(-1, 2).T
        if self.dataset is not None:
            return self.dataset.gather(section, row)
        assert self.tensor is not None
        return self.tensor[row].float()

    def identity(self, place: int) -> dict[str, Any]:
        """Columns that name a vector: its row, and its dataset where it has one."""
        section, row = self.places[place]
        if self.dataset is None:
            return {"index": row}
        return {"dataset": self.dataset.sections[section].id, "index": row}

    def layer(self, place: int) -> int | None:
        """Zero-based block whose output the vector is; None where the file does not state it."""
        if self.dataset is None:
            row = self.places[place][1]
            return self.tensor_layer if self.row_layers is None else self.row_layers[row]
        return self.dataset.sections[self.places[place][0]].layer

    def kind(self, place: int) -> str | None:
        """Kind of position of a vector (dataset/captured.py), None where it is not stated."""
        if self.dataset is None:
            return None
        return stated_kind(self.dataset.sections[self.places[place][0]].metadata)

    def holds_concept(self, place: int) -> bool:
        """False for a vector of a section of vectors without a concept (vector_type "null")."""
        if self.dataset is None:
            return True
        return self.dataset.sections[self.places[place][0]].metadata["vector_type"] != "null"

    def labels(self, place: int) -> Sequence[str]:
        """A vector's own labels, in the training file's order; empty for vectors alone."""
        return self._labels.get(self.places[place], ())

    @cached_property
    def _labels(self) -> dict[tuple[int, int], Sequence[str]]:
        sections = () if self.dataset is None else self.dataset.sections
        return {
            (number, item.index): item.labels
            for number, section in enumerate(sections)
            for item in section.items
        }

    def first(self, count: int) -> LabelSource:
        """The first `count` vectors, or all if there are fewer."""
        return replace(self, places=self.places[:count])

    def only(self, rows: str) -> LabelSource:
        """Those whose row is named by `rows` ("0:1000,5"), in the order they have here.

        Raises ConfigError for what is no selection, and where a part of it has no vector.
        """
        count = 1 + max((row for _, row in self.places), default=-1)
        present = {row for _, row in self.places}
        wanted: set[int] = set()
        for part in rows.split(","):
            found = present.intersection(parse_selection(part, count, "indices"))
            if not found:
                raise ConfigError(
                    f"indices: no vector in {part.strip()}; rows go from 0 to {count - 1}, and "
                    f"{len(present)} of them have one."
                )
            wanted |= found
        return replace(self, places=[place for place in self.places if place[1] in wanted])


def read_label_source(path: str | Path, split: Split | Literal["all"] = "all") -> LabelSource:
    """Vectors to label from a training file (.json, .json.gz) or a vector file.

    Raises like `load_dataset` and `open_directions`. `split` matters for training files only.
    """
    name = Path(path).name
    if name.lower().endswith((".json", ".gz")):
        dataset = load_dataset(path)
        items = dataset.labelled(None if split == "all" else split)
        return LabelSource(dataset, None, [(item.section, item.row) for item in items])
    rows, layers = open_directions(path)
    return replace(LabelSource.of_rows(rows), row_layers=layers)
