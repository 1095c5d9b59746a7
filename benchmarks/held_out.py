"""Vectors of held-out concepts, with all their names as labels: what benchmarks of labels use."""

from __future__ import annotations

import random

from selfie_adapters.config.types import Split
from selfie_adapters.dataset import Item, Section, load_dataset
from selfie_adapters.evaluation.naming.judging import names_of
from selfie_adapters.sources.topics.topic import Topic


def held_out(
    source: str, layer: int, position: str, split: Split, count: int, seed: int
) -> Section:
    """One vector each of `count` concepts, drawn at random, with all their names as labels; the
    name itself comes first."""
    for section in load_dataset(source).sections:
        meta = section.metadata
        if meta["vector_type"] == "null" or section.layer != layer:
            continue
        if str(meta.get("position")) != position:
            continue
        first: dict[str, Item] = {}
        for item in section.items:
            if item.split == split:
                first.setdefault(item.labels[0], item)
        names = sorted(first)
        random.Random(seed).shuffle(names)
        names = names[:count]
        vectors = section.vectors[[first[name].index for name in names]]
        items = [
            Item(i, names_of(Topic((name,), name=name)), split) for i, name in enumerate(names)
        ]
        metadata = {**meta, "filename": f"l{layer}_at_{position}.safetensors"}
        return Section(metadata, vectors, items)
    raise SystemExit(f"{source}: no section of layer {layer} at position {position}")
