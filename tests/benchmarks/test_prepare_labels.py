from __future__ import annotations

from pathlib import Path

import pytest

import loaded_process

ROOT = Path(__file__).parents[2]


def benchmark(*arguments: object) -> dict[str, float]:
    return loaded_process.printed_json([ROOT / "benchmarks/prepare_labels.py", *arguments], ROOT)


def test_both_ways_fetch_and_are_compared():
    result = benchmark("--batches", 8, "--rows", 4, "--rounds", 1)
    # each request takes 50 ms: one at a time cannot be quicker than 4 labels in that time
    assert 0 < result["one_at_a_time_labels_per_second"] <= 80
    ours, other = result["ours_labels_per_second"], result["one_at_a_time_labels_per_second"]
    assert result["ratio"] == pytest.approx(ours / other, rel=0.02)


@pytest.mark.slow
def test_six_times_the_labels_a_second():
    result = benchmark("--batches", 600, "--rounds", 1)
    assert result["latency_ms"] == 50
    assert result["ratio"] >= 6
