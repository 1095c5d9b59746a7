"""Times of commands in a terminal of their own."""

from __future__ import annotations

import sys

import pytest
from first_label import COMMANDS, timed

SLOW = """
import os, sys, time
assert sys.stdout.isatty() and os.environ["SELFIE_CACHE"]
print("\\x1b[1mlay\\x1b[0mer", flush=True)
time.sleep(0.6)
print("done")
"""


def test_the_first_label_is_timed_where_it_is_shown(tmp_path):
    times = timed([sys.executable, "-c", SLOW], "layer", tmp_path, tmp_path)
    assert times.first_label + 0.5 < times.end


@pytest.mark.parametrize("code", ["print('no such thing')", "print('layer'); exit(3)"])
def test_a_command_without_a_label_or_that_fails_has_no_times(code, tmp_path):
    with pytest.raises(RuntimeError, match="ended with [03]"):
        timed([sys.executable, "-c", code], "layer", tmp_path, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_shows_a_label_on_the_demo_model(name, tmp_path):
    command, sign = COMMANDS[name]
    times = timed(command, sign, tmp_path, tmp_path / "cache")
    assert 0 < times.first_label <= times.end
