from __future__ import annotations

import json
from pathlib import Path

import loaded_process

ROOT = Path(__file__).parents[2]


def test_every_figure_is_measured_on_the_tiny_shape(tmp_path):
    # the code path of a GPU
    command = [ROOT / "benchmarks/gpu.py", "--shape", "tiny", "--output", tmp_path]
    done = loaded_process.run(command, tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    assert list(found) == ["machine", "equality", "training step", "labelling", "candidates"]
    assert not [row for rows in found.values() for row in rows.values() if "failed" in row]
    exact = found["equality"]["float32"]
    assert float(exact["loss, shared"]) < 1e-5
    assert float(exact["gradient, alone"]) < 1e-5
    assert exact["equal greedy answers"] == "48 of 48"
    step = found["training step"]["85 labels of 5 vectors"]
    assert 0 < step["share of the floor"] < 1
    assert float(step["loss apart"]) < 1e-5
    assert all(row["labels per second"] > 0 for row in found["labelling"].values())
    table = (tmp_path / "gpu.md").read_text(encoding="utf-8")
    assert "| 80 labels | " in table
