"""Signals as a request: the step under way is finished and saved, then training ends."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from selfie_adapters.interruption import catchable, signal_name


@dataclass
class StopRequest:
    """signal: number of the signal that asked to stop; 0 while none has."""

    signal: int = 0

    def __bool__(self) -> bool:
        return self.signal != 0

    @property
    def name(self) -> str:
        return signal_name(self.signal)


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """While open, a first Ctrl-C, SIGTERM or SIGHUP only sets the request; a second interrupts.

    The second is answered as it would be outside: the command line ends with one line, and a
    program that calls `train` gets KeyboardInterrupt. Outside the main thread signals cannot be
    caught, and the request stays unset.
    """
    request = StopRequest()
    before = {number: signal.getsignal(number) for number in catchable()}

    def handler(number: int, frame: FrameType | None) -> None:
        if not request:
            request.signal = number
            return
        former = before[number]
        if callable(former):
            former(number, frame)
        raise KeyboardInterrupt

    try:
        for number in before:
            signal.signal(number, handler)
        yield request
    finally:
        for number, former in before.items():
            signal.signal(number, former)
