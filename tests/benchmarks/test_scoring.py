from __future__ import annotations

from pathlib import Path

import pytest

import loaded_process

ROOT = Path(__file__).parents[2]


def benchmark(*arguments: object) -> dict[str, float]:
    return loaded_process.printed_json([ROOT / "benchmarks/scoring.py", *arguments], ROOT)


@pytest.mark.slow
def test_all_ways_write_the_same_texts_and_find_the_same_hits():
    result = benchmark("--small", "--rounds", 2)
    assert result["conversations"] == 20
    # the round that warms up has one label
    assert (result["same_texts"], result["texts"]) == (50, 50)
    assert result["same_hits"] == result["hits_compared"] == 50
    assert result["ratio"] == pytest.approx(result["plain_s"] / result["ours_s"], rel=0.05)
