"""The long benchmarks start, and say what they do, wherever they are called from."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
BENCHMARKS = [  # without those that others import
    file for file in sorted(FOLDER.glob("*.py")) if "__main__" in file.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("file", BENCHMARKS, ids=lambda file: file.stem)
def test_each_benchmark_says_what_it_measures(file, tmp_path):
    done = subprocess.run(
        [sys.executable, file, "--help"], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    first_line = file.read_text(encoding="utf-8").splitlines()[0].strip('"').rstrip(".")
    assert first_line[:40] in " ".join(done.stdout.split())
