"""Remaking the shipped adapters: recipes, means and calibration data, without a model."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from ship_block24 import recipe, save_means
from shipping import calibration_file

from selfie_adapters.commands.demo_training import SPECIALISTS, specialist_recipe
from selfie_adapters.config import TrainConfig
from selfie_adapters.dataset import Item, Section, save_dataset


def test_the_small_adapter_learns_as_the_specialist_of_its_place_does():
    mine = TrainConfig.model_validate(recipe(Path("more.json"), Path("runs"), 3))
    special = TrainConfig.model_validate(
        specialist_recipe(Path("more.json"), Path("runs"), (24, "-1"))
    )
    assert mine.projection.type == "scalar_affine"
    assert mine.seed == 3
    assert mine.training.max_steps == SPECIALISTS[24, "-1"]
    assert mine.data == special.data
    assert mine.soft_prompt == special.soft_prompt
    assert mine.training.learning_rate == special.training.learning_rate
    names = {recipe(Path("more.json"), Path("runs"), n)["experiment_name"] for n in range(5)}
    assert len(names) == 5  # each seed has a run of its own


def test_its_means_are_those_of_its_block(tmp_path):
    names = ("layer_2_at_-1", "layer_24_at_-1", "layer_24_at_name", "layer_240_at_-1")
    means = {name: torch.full((2,), float(i)) for i, name in enumerate(names)}
    save_file(means, tmp_path / "all.safetensors", {"chat": "bare"})
    save_means(tmp_path / "all.safetensors", tmp_path / "own.safetensors")
    own = load_file(tmp_path / "own.safetensors")
    assert {name: one.tolist() for name, one in own.items()} == {
        "layer_24_at_-1": [1.0, 1.0],
        "layer_24_at_name": [2.0, 2.0],
    }
    with safe_open(tmp_path / "own.safetensors", "pt") as file:
        assert file.metadata() == {"chat": "bare"}


def test_it_is_calibrated_on_val_vectors_of_its_block(tmp_path):
    def section(layer):
        name = f"more_l{layer}"
        facts = {"dataset_name": name, "filename": f"{name}.safetensors", "layer": layer}
        facts |= {"source": "topics", "vector_type": "topic", "no_concept": "nothing"}
        items = [Item(0, ["owl"], "train"), Item(1, ["dog"], "val"), Item(2, ["cat"], "test")]
        return Section(facts, torch.eye(3), items)

    save_dataset(tmp_path / "more.json", [section(20), section(24)])
    made = calibration_file(tmp_path / "more.json", [24])
    (one,) = json.loads(made.read_text(encoding="utf-8"))
    assert one["metadata"]["layer"] == 24
    (item,) = one["vectors"]
    assert (item["index"], item["split"]) == (1, "val")
    assert "dog" in item["labels"]
    assert len(item["labels"]) > 5  # what is related is right here
