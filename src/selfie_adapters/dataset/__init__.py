"""The training format: read, checked, written and split."""

from selfie_adapters.dataset.load import (
    Examples,
    LabelledVector,
    Section,
    VectorLabelDataset,
    load_dataset,
    read_sections,
    save_dataset,
)
from selfie_adapters.dataset.schema import Item, Problem
from selfie_adapters.dataset.source import read_label_source
from selfie_adapters.dataset.splits import split_indices
from selfie_adapters.dataset.vectors import open_vectors, save_vectors

__all__ = [
    "Examples",
    "Item",
    "LabelledVector",
    "Problem",
    "Section",
    "VectorLabelDataset",
    "load_dataset",
    "open_vectors",
    "read_label_source",
    "read_sections",
    "save_dataset",
    "save_vectors",
    "split_indices",
]
