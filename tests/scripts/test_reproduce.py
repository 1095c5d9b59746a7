from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KINDS = (
    "identity",
    "scale_only",
    "scalar_affine",
    "scalar_affine_plus_low_rank",
    "low_rank_only",
    "full_rank",
)


def tables_of(text: str) -> dict[str, list[list[str]]]:
    """Heading → rows of its table, the heads first."""
    found = {}
    for part in text.split("### ")[1:]:
        heading, *lines = part.splitlines()
        rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")]
        found[heading] = rows
    return found


@pytest.mark.slow
def test_little_of_everything_killed_and_gone_on_with(tmp_path):
    command = [sys.executable, str(ROOT / "scripts/reproduce.py"), "--quick", "--out", "out"]
    env = {**os.environ, "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(command, cwd=tmp_path, env=env)
    first = tmp_path / "out/adapters/scale_only-topics/config.yaml"
    while process.poll() is None and not first.exists():
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL

    again = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr[-2000:]
    assert "topic vectors: done already" in again.stdout

    tables = tables_of((tmp_path / "out/tables.md").read_text())
    assert [heading.split(":")[0] for heading in tables] == [
        "Loss of held-out labels, adapters trained on topics",
        "Loss of held-out labels, adapters trained on sae",
        "Retrieval",
        "Taboo",
        "Generation scoring with the demo SAE",
        "Bridge entities",
    ]
    for rows in tables.values():
        heads, *body = rows
        assert body
        assert all(len(row) == len(heads) for row in body)
        shown = [
            float(x) for row in body for cell in row[1:] for x in re.findall(r"-?\d+\.\d+", cell)
        ]
        assert shown
        assert all(math.isfinite(number) for number in shown)
    for trained_on in ("topics", "sae"):
        table = tables[f"Loss of held-out labels, adapters trained on {trained_on}"]
        assert [row[0] for row in table[1:]] == list(KINDS)
        rows = (tmp_path / f"out/loss-{trained_on}/examples.jsonl").read_text().splitlines()
        for kind in KINDS[1:]:
            losses = [
                row["trained"]
                for row in map(json.loads, rows)
                if (row["adapter"], row["dataset"]) == (kind, trained_on)
            ]
            (cell,) = (row[2] for row in table if row[0] == kind)
            assert float(cell.split()[0]) == pytest.approx(sum(losses) / len(losses), abs=0.006)
