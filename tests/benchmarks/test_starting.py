"""The long benchmarks start, and say what they do, wherever they are called from."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "benchmarks"
BENCHMARKS = [  # without those that others import
    file for file in sorted(FOLDER.glob("*.py")) if "__main__" in file.read_text(encoding="utf-8")
]
# One process for all, as it is loading torch that takes the time: what each prints, in their order.
HELPS = """
import contextlib, io, json, runpy, sys
for file in sys.argv[1:]:
    sys.argv, out, path = [file, "--help"], io.StringIO(), list(sys.path)
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        sys.path.insert(0, file.rpartition("/")[0])
        runpy.run_path(file, run_name="__main__")
    sys.path[:] = path
    print(json.dumps(out.getvalue()))
"""


def test_each_benchmark_says_what_it_measures(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", HELPS, *map(str, BENCHMARKS)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    printed = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(BENCHMARKS) >= 7
    for file, text in zip(BENCHMARKS, printed, strict=True):
        first_line = file.read_text(encoding="utf-8").splitlines()[0].strip('"').rstrip(".")
        assert first_line[:40] in " ".join(text.split()), file
