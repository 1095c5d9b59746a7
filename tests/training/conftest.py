"""A toy data set and the tiny model that the training tests share."""

from __future__ import annotations

import pytest
import torch

from selfie_adapters.dataset import Item, Section, save_dataset
from selfie_adapters.model import FrozenModel
from tiny import golden_tokenizer, tiny_network


@pytest.fixture
def model():
    return FrozenModel(tiny_network("llama"), golden_tokenizer(), "tiny")


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "toy.json"
    generator = torch.Generator().manual_seed(0)
    sections = []
    for name, layer, count in (("a", 1, 20), ("b", 1, 10), ("b", 2, 6)):
        metadata = {
            "dataset_name": name,
            "filename": f"{name}{layer}.safetensors",
            "layer": layer,
            "source": "test",
            "vector_type": "random",
            "chat": "bare",
            "question": f"{name} {{}}",
        }
        items = [
            Item(i, [f"{name} number {i}"], "val" if i % 5 == 4 else "train") for i in range(count)
        ]
        sections.append(Section(metadata, torch.randn(count, 32, generator=generator), items))
    save_dataset(path, sections)
    return path
