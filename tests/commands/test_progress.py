"""Progress of long commands: on a terminal, and where the output is piped."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from selfie_adapters.commands import progress
from selfie_adapters.commands.progress import progress_bars, steps_shown


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only when the test says so, for rich and for the lines."""

    class Clock:
        now = 100.0

        def __call__(self) -> float:
            return self.now

    clock = Clock()
    monkeypatch.setattr(progress.time, "monotonic", clock)
    return clock


def piped() -> Console:
    return Console(file=io.StringIO())


def test_piped_lines_state_rate_and_time_left_on_standard_error(clock, capsys):
    console = piped()
    with progress_bars(console) as bars:
        task = bars.add_task("vectors", total=400)
        for _ in range(120):
            clock.now += 0.25  # four per second
            bars.advance(task)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "vectors: 40 of 400, 4.0 per second, 0:01:30 left",
        "vectors: 80 of 400, 4.0 per second, 0:01:20 left",
        "vectors: 120 of 400, 4.0 per second, 0:01:10 left",
    ]
    assert console.file.getvalue() == ""


def test_slow_work_is_counted_per_minute(clock, capsys):
    with steps_shown(piped()) as show:
        for done in range(4):
            show("[answers]", done, 100)
            clock.now += 120
    assert "[answers]: 3 of 100, 0.5 per minute, 3:14:00 left" in capsys.readouterr().err


def test_short_work_prints_nothing(clock, capsys):
    with progress_bars(piped()) as bars:
        task = bars.add_task("vectors", total=3)
        bars.update(task, completed=3)
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_a_bar_with_rate_and_time_left():
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    with progress_bars(console) as bars:
        task = bars.add_task("vectors", total=400, start=True)
        shown = bars.tasks[task]
        clock = iter(range(1000))
        shown.get_time = bars.get_time = lambda: float(next(clock))
        for _ in range(20):
            bars.advance(task)
        bars.refresh()
    drawn = console.file.getvalue()
    assert "20/400" in drawn
    assert "per second" in drawn
    assert "left" in drawn
