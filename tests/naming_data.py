"""A training file as `prepare topics` writes it, with random vectors for the golden model."""

from __future__ import annotations

from pathlib import Path

import torch

from selfie_adapters.dataset import Item, Section, save_dataset
from selfie_adapters.dataset.schema import Split

NAMES = ["owl", "bee", "tin", "ladder", "gnu", "elk", "oven", "bell", "tie", "lamp", "gate", "egg"]
SPLITS: list[Split] = ["test"] * 6 + ["val"] * 3 + ["train"] * 3
NO_CONCEPT = "nothing"


def write_naming_data(
    folder: Path, no_concept: str = NO_CONCEPT, width: int = 48, nulls: bool = True
) -> str:
    """Two blocks, the name in two sentences and the last token, and vectors without a concept."""
    generator = torch.Generator().manual_seed(8)
    common = {"source": "topics", "no_concept": no_concept}
    sections = []
    for kind, frames in (("name", 2), (-1, 1)):
        for layer in (0, 2):
            items = [
                Item(row, [name, f"{name}, a thing"], split)
                for row, (name, split) in enumerate(
                    [pair for pair in zip(NAMES, SPLITS, strict=True) for _ in range(frames)]
                )
            ]
            vectors = torch.randn(len(items), width, generator=generator) * 3
            metadata = {
                "dataset_name": f"own_at_{kind}",
                "filename": f"own_l{layer}_at_{kind}.safetensors",
                "layer": layer,
                "vector_type": "topic",
                "position": kind,
                **common,
            }
            sections.append(Section(metadata, vectors, items))
    metadata = {
        "dataset_name": "own_at_null",
        "filename": "own_l2_at_null.safetensors",
        "layer": 2,
        "vector_type": "null",
        "position": "null",
        **common,
    }
    silent = [Item(row, [no_concept], "test" if row < 8 else "train") for row in range(12)]
    vectors = torch.randn(12, width, generator=generator) * 3
    if nulls:
        sections.append(Section(metadata, vectors, silent))
    folder.mkdir(parents=True, exist_ok=True)
    save_dataset(folder / "own.json", sections)
    return str(folder / "own.json")
