from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def benchmark(*arguments: object) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks/prepare.py", "--json", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    return json.loads(line)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_both_ways_write_the_same_rows(dtype, tmp_path):
    shape = ("--d-sae", 2048, "--d-in", 128, "--rounds", 1, "--folder", tmp_path)
    result = benchmark(*shape, "--dtype", dtype)
    assert result["same_rows"] is True
    assert result["w_dec_gib"] == 0.001
    assert result["memory_ratio"] == pytest.approx(
        result["saelens_gib"] / result["ours_gib"], rel=0.02
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_quarter_of_goodfires_width_stays_within_the_promise(tmp_path):
    """256 MiB of rows; the libraries' own memory, about 250 MiB, does not grow with them."""
    small = benchmark("--d-sae", 4096, "--d-in", 64, "--rounds", 1, "--folder", tmp_path)
    result = benchmark("--d-sae", 16384, "--d-in", 4096, "--rounds", 1, "--folder", tmp_path)
    assert result["w_dec_gib"] == 0.25
    assert result["ours_gib"] - small["ours_gib"] < 1.3 * 0.25
