"""Fifty SIGKILLs at random moments of each long job leave no trace in its results."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
# In a list of its own: importing the jobs here would load what the harness is to load itself.
NAMES = (
    "train",
    "label",
    "read",
    "export",
    "eval loss",
    "eval retrieval",
    "eval scoring",
    "eval bridge",
    "prepare sae",
    "prepare topics",
    "prepare dataset",
)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_fifty_kills_at_random_moments_give_the_same_bytes(name):
    if name == "eval scoring":
        pytest.importorskip("sae_lens")
    done = subprocess.run(
        [sys.executable, str(TESTS / "kill_harness.py"), name, "50", "0"],
        env={**os.environ, "PYTHONPATH": f"{TESTS.parent / 'src'}{os.pathsep}{TESTS}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["kills"] >= 50
    assert report["attempts"] == report["kills"] + report["lives"]
