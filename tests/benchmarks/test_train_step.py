from __future__ import annotations

import json
from pathlib import Path

import pytest

import loaded_process

ROOT = Path(__file__).parents[2]


def benchmark(*arguments: object) -> dict[str, float]:
    return loaded_process.printed_json(
        [ROOT / "benchmarks/train_step.py", "--json", *arguments], ROOT
    )


@pytest.mark.parametrize("options", [(), ("--no-checkpointing",)])
def test_both_ways_have_the_same_loss(options, golden_dir):
    model = golden_dir / "model"
    result = benchmark(
        "--model", model, "--dtype", "float32", "--batch", 6, "--rounds", 2, *options
    )
    assert result["largest_relative_loss_difference"] < 1e-5
    assert result["ratio"] == pytest.approx(
        result["plain_seconds"] / result["ours_seconds"], rel=0.2, abs=0.02
    )
    assert result["share_of_floor"] < 1


def test_a_shape_with_random_weights_and_many_labels_per_vector():
    # the code path of --shape llama-3.1-8b, which needs a GPU
    result = benchmark(
        "--shape", "tiny", "--dtype", "float32", "--labels-per-vector", 17, "--rounds", 1
    )
    assert (result["batch"], result["labels_per_vector"]) == (80, 17)
    assert result["largest_relative_loss_difference"] < 1e-5
    assert result["ours_peak_memory_gib"] > 0


@pytest.mark.slow
def test_three_times_the_examples_a_second_on_the_real_model():
    result = benchmark("--rounds", 3)
    assert result["batch"] == 64
    assert result["ratio"] >= 3
    assert result["largest_relative_loss_difference"] < 2e-3  # bfloat16


def test_the_lengths_are_those_of_the_published_labels():
    # a histogram: tokens of a label with its closing quote and end token, and how many have it
    counts = json.loads((ROOT / "benchmarks/goodfire_label_lengths.json").read_text())["counts"]
    total = sum(counts.values())
    mean = sum(int(length) * count for length, count in counts.items()) / total
    assert total == 45_418
    assert mean == pytest.approx(11, abs=0.5)
