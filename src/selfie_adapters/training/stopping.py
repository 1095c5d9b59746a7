"""Ctrl-C and SIGTERM as a request: the step under way is finished and saved, then training ends."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass
class StopRequest:
    """signal: number of the signal that asked to stop; 0 while none has."""

    signal: int = 0

    def __bool__(self) -> bool:
        return self.signal != 0

    @property
    def name(self) -> str:
        return "Ctrl-C" if self.signal == signal.SIGINT else signal.Signals(self.signal).name


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """While open, a first Ctrl-C or SIGTERM only sets the request; a second one interrupts.

    Outside the main thread signals cannot be caught, and the request stays unset.
    """
    request = StopRequest()

    def handler(number: int, _frame: FrameType | None) -> None:
        if request:
            raise KeyboardInterrupt
        request.signal = number

    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, former in before.items():
            signal.signal(number, former)
