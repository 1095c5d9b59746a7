"""Make data/sample: a training file small enough to read, of made-up vectors, and a topics file.

    python scripts/make_sample_data.py [FOLDER]

Every concept's vector is its group's direction plus one of its own, so related concepts lie close
together. The numbers come from a seed: the same versions of torch and safetensors give the same
bytes. The vectors are no model's; they are as wide as the tests' tiny model, 48.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from selfie_adapters.dataset import Item, Section, save_dataset, split_indices
from selfie_adapters.files import write_text

D_MODEL = 48
SEED = 7
OWN_SHARE = 0.8  # length of a concept's own direction relative to its group's

# group: (name, what it is), every word of it ours
CONCEPTS = {
    "animal": [
        ("owl", "a bird that hunts at night"),
        ("otter", "a playful river animal with thick fur"),
        ("bee", "an insect that makes honey"),
        ("shark", "a large hunting fish"),
    ],
    "food": [
        ("bread", "baked dough cut in slices"),
        ("cheese", "milk made solid and aged"),
        ("lemon", "a sour yellow fruit"),
        ("soup", "a warm dish eaten with a spoon"),
    ],
    "tool": [
        ("hammer", "something to drive nails with"),
        ("saw", "a toothed blade for cutting wood"),
        ("ladder", "rungs to climb up a wall"),
        ("needle", "a thin point that pulls a thread"),
    ],
    "weather": [
        ("thunder", "the sound that follows lightning"),
        ("fog", "a cloud that lies on the ground"),
        ("frost", "ice crystals on a cold morning"),
        ("rainbow", "colours in the sky after rain"),
    ],
    "music": [
        ("violin", "a small instrument played with a bow"),
        ("drum", "a skin stretched to be struck"),
        ("choir", "many people singing together"),
        ("lullaby", "a song that sends a child to sleep"),
    ],
    "place": [
        ("harbour", "where ships are safe from the sea"),
        ("library", "a house of books to borrow"),
        ("desert", "dry land with hardly any rain"),
        ("volcano", "a mountain that can pour out lava"),
    ],
}


def vectors(generator: torch.Generator) -> torch.Tensor:
    """[24, 48]: unit group direction + OWN_SHARE × unit direction of the concept's own."""
    rows = []
    for members in CONCEPTS.values():
        group = unit(torch.randn(D_MODEL, generator=generator))
        for _ in members:
            rows.append(group + OWN_SHARE * unit(torch.randn(D_MODEL, generator=generator)))
    return torch.stack(rows)


def unit(vector: torch.Tensor) -> torch.Tensor:
    return vector / vector.norm()


def main(folder: Path) -> None:
    generator = torch.Generator().manual_seed(SEED)
    concepts = [concept for members in CONCEPTS.values() for concept in members]
    train, val = split_indices(range(len(concepts)), val_fraction=0.25)
    items = [
        Item(i, list(concepts[i]), "val" if i in val else "train") for i in sorted([*train, *val])
    ]
    sections = []
    for layer, suffix in ((1, "safetensors"), (2, "pt")):
        metadata = {
            "dataset_name": "everyday",
            "filename": f"everyday_l{layer}.{suffix}",
            "layer": layer,
            "source": "sample",
            "vector_type": "synthetic",
            "model_dim": D_MODEL,
        }
        sections.append(Section(metadata, vectors(generator), items))
    save_dataset(folder / "sample.json", sections, overwrite=True)
    # torch.save names its archive after the file it is given, and save_dataset gives it a temporary
    # one; an open file has no name, so that the bytes are the same each time.
    with (folder / "everyday_l2.pt").open("wb") as file:
        torch.save(sections[1].vectors, file)
    rows = [json.dumps({"name": name, "labels": [name, gloss]}) for name, gloss in concepts]
    write_text(folder / "topics.jsonl", "\n".join(rows) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "data/sample"))
