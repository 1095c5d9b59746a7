"""What can be labelled: a training file's vectors, or a file of vectors alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from selfie_adapters.dataset.load import VectorLabelDataset, load_dataset
from selfie_adapters.dataset.vectors import open_vectors
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
        """Zero-based block whose output the vector is; None where the file does not say."""
        if self.dataset is None:
            return self.tensor_layer
        return self.dataset.sections[self.places[place][0]].layer

    def first(self, count: int) -> LabelSource:
        """The first `count` vectors, or all if there are fewer."""
        return replace(self, places=self.places[:count])

    def only(self, rows: list[range]) -> LabelSource:
        """Those whose row is in one of `rows`, in the order they have here.

        Raises ConfigError if a range has no vector.
        """
        for wanted in rows:
            if not any(row in wanted for _, row in self.places):
                last = max((row for _, row in self.places), default=-1)
                raise ConfigError(
                    f"indices: no vector in {wanted.start}:{wanted.stop}; rows go from 0 to {last}."
                )
        kept = [place for place in self.places if any(place[1] in wanted for wanted in rows)]
        return replace(self, places=kept)


def parse_indices(text: str) -> list[range]:
    """Row numbers as written on the command line: "0:1000,5" is rows 0 to 999, and 5.

    Raises ConfigError for anything else.
    """
    rows: list[range] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?::(\d+))?", part.strip())
        start = int(match[1]) if match else 0
        stop = int(match[2]) if match and match[2] else start + 1
        if not match or stop <= start:
            raise ConfigError(
                f'indices: "{part}" is neither a row nor a range; write 5 or 0:1000 (1000 not '
                "included), parted by commas."
            )
        rows.append(range(start, stop))
    return rows


def read_label_source(
    path: str | Path, split: Literal["train", "val", "all"] = "all"
) -> LabelSource:
    """Vectors to label from a training file (.json, .json.gz) or a vector file.

    Raises like `load_dataset` and `open_vectors`. `split` matters for training files only.
    """
    name = Path(path).name
    if name.endswith((".json", ".json.gz", ".gz")):
        dataset = load_dataset(path)
        items = dataset.labelled(None if split == "all" else split)
        return LabelSource(dataset, None, [(item.section, item.row) for item in items])
    return LabelSource.of_rows(open_vectors(path))
