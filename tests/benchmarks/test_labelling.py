from __future__ import annotations

from pathlib import Path

import pytest

import loaded_process

ROOT = Path(__file__).parents[2]


def benchmark(*arguments: object) -> dict[str, float]:
    return loaded_process.printed_json(
        [ROOT / "benchmarks/labelling.py", "--json", *arguments], ROOT
    )


def test_all_ways_write_the_same_texts(golden_dir):
    model = golden_dir / "model"
    adapter = golden_dir / "adapters/scalar_affine_norm.safetensors"
    result = benchmark(
        "--model", model, "--adapter", adapter, "--dtype", "float32", "--batch", 6, "--rounds", 2
    )
    assert (result["texts"], result["same_texts"]) == (20, 20)
    assert result["prompt_tokens"] > result["shared_tokens"] > 0
    expected = result["labels_per_second"] / result["plain_labels_per_second"]
    assert result["ratio"] == pytest.approx(expected, rel=0.1, abs=0.05)


@pytest.mark.slow
def test_labels_on_the_real_model_are_those_of_plain_generation():
    # In bfloat16 the rounding depends on the batch's shape, and near ties come out differently.
    result = benchmark("--batch", 16, "--rounds", 1, "--max-new-tokens", 12, "--dtype", "float32")
    assert result["same_texts"] == result["texts"]
    assert result["ratio"] > 1.1  # a small batch of long labels: little to save
