"""Kills, signals and full disks at random moments leave no trace in the results of long jobs."""

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
    "confidence fit",
    "eval loss",
    "eval retrieval",
    "eval scoring",
    "eval bridge",
    "prepare sae",
    "prepare topics",
    "prepare dataset",
)


def report(what, name, count):
    if name == "eval scoring":
        pytest.importorskip("sae_lens")
    done = subprocess.run(
        [sys.executable, str(TESTS / "kill_harness.py"), what, name, str(count), "0"],
        env={**os.environ, "PYTHONPATH": f"{TESTS.parent / 'src'}{os.pathsep}{TESTS}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_fifty_kills_at_random_moments_give_the_same_bytes(name):
    found = report("kills", name, 50)
    assert found["kills"] >= 50
    assert found["attempts"] == found["kills"] + found["lives"]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_disk_that_is_full_at_any_size_is_one_line_and_the_job_resumes(name):
    found = report("full", name, 8)
    assert found["failed"]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_signals_at_random_moments_are_one_line_that_states_how_to_resume(name):
    assert report("signals", name, 20)["stopped"] >= 20


def test_a_signal_at_any_moment_is_one_line_that_states_how_to_resume():
    """The quickest job that writes two files; the slow test above has them all."""
    assert report("signals", "prepare sae", 6)["stopped"] >= 6
