"""What can be labelled: a training file's vectors, or a file of vectors alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from selfie_adapters.dataset.load import VectorLabelDataset, load_dataset
from selfie_adapters.dataset.vectors import open_vectors


@dataclass(frozen=True)
class LabelSource:
    """Vectors in a fixed order, each with what identifies it in the output."""

    dataset: VectorLabelDataset | None
    tensor: Tensor | None  # [rows, d_model] where there is no dataset
    places: list[tuple[int, int]]  # (section, row)

    def __len__(self) -> int:
        return len(self.places)

    def vectors(self, start: int, stop: int) -> Tensor:
        """Vectors start to stop - 1: [n, d_model], float32."""
        section, row = torch.tensor(self.places[start:stop], dtype=torch.int64).reshape(-1, 2).T
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
    tensor = open_vectors(path)
    return LabelSource(None, tensor, [(0, row) for row in range(tensor.shape[0])])
