"""Ctrl-C, SIGTERM and SIGHUP end every command with one line that states how to resume.

The first signal raises `Interrupted` in the main thread, so that locks, temporary files, child
processes and the terminal are cleaned up on the way out. A second signal, or one that arrives where
an exception would be lost (in a destructor, or while the interpreter shuts down), ends the process
at once. Nothing is lost by that: every job is written so that it can be killed at any moment.

Imports the standard library alone, so that it is in place before anything slow is imported.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
AGAIN = "Finished work is kept. Run the same command again to resume."

_SHOW_CURSOR = b"\x1b[?25h"  # progress bars hide it


class Interrupted(KeyboardInterrupt):
    """A signal asked the command to stop."""


class _State:
    """What the handler knows of the process it was installed in."""

    def __init__(self) -> None:
        self.process = 0  # 0: not installed
        self.received = 0
        self.printed = False
        self.ending = False
        self.how = ""
        self.advice: list[Callable[[], str]] = []


_state = _State()


def signal_name(number: int) -> str:
    """How messages name a signal."""
    return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name


def catchable() -> list[int]:
    """The signals of SIGNALS that this process may answer.

    None outside the main thread. One that is ignored stays so: nohup and shells that start a
    command in the background ask for it.
    """
    if threading.current_thread() is not threading.main_thread():
        return []
    return [n for n in SIGNALS if signal.getsignal(n) not in (signal.SIG_IGN, None)]


def install() -> None:
    """Answer signals from now until the process ends."""
    if _state.process == os.getpid():
        return
    _state.__init__()
    _state.process = os.getpid()
    for number in catchable():
        signal.signal(number, _answer)
    sys.unraisablehook = _unraisable


@contextmanager
def installed() -> Iterator[None]:
    """Answer signals while the block runs; it ends with `SystemExit`, after one printed line.

    A second use inside the first, or after `install`, changes nothing about the handlers.
    """
    outermost = _state.process != os.getpid()
    before = {number: signal.getsignal(number) for number in catchable()} if outermost else {}
    hook = sys.unraisablehook
    install()
    try:
        yield
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            _state.received = _state.received or signal.SIGINT
        if not _state.received:
            raise
        _flush()
        _tell()
        raise SystemExit(128 + _state.received) from None
    finally:
        if outermost:
            _state.process = 0
            sys.unraisablehook = hook
            for number, former in before.items():
                signal.signal(number, former)


def finish() -> None:
    """The command is done: what is left is the interpreter's shutdown, which no exception helps."""
    _state.ending = True


@contextmanager
def advice(how: Callable[[], str]) -> Iterator[None]:
    """While the block runs, `how()` states how to resume (the innermost block counts)."""
    _state.advice.append(how)
    try:
        yield
    except BaseException:
        if _state.received and not _state.how:  # the line is printed after the block
            _state.how = how()
        raise
    finally:
        _state.advice.remove(how)


def _answer(number: int, _frame: FrameType | None) -> None:
    if os.getpid() != _state.process:  # a child that was forked: its parent speaks
        os._exit(128 + number)
    if _state.received or _state.ending:
        _end(number)
    _state.received = number
    raise Interrupted


def _unraisable(unraisable: Any) -> None:
    """An exception in a destructor is printed and dropped; ours must not be."""
    if isinstance(unraisable.exc_value, Interrupted):
        _end(_state.received)
    sys.__unraisablehook__(unraisable)


def _end(number: int) -> None:
    _state.received = _state.received or number
    _tell()
    os._exit(128 + _state.received)


def _flush() -> None:
    """Put out what was printed, or drop it where nobody can receive it any more."""
    for stream, number in ((sys.stdout, 1), (sys.stderr, 2)):
        try:
            stream.flush()
        except (OSError, ValueError):
            with suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), number)


def _tell() -> None:
    """Print the one line, once. To the file descriptor: a signal may come inside a print."""
    if _state.printed:
        return
    how = _state.how
    if not how and _state.advice:
        with suppress(Exception):
            how = _state.advice[-1]()
    # A second signal in here would end the process with the line marked as printed, but not out.
    before = {number: signal.signal(number, signal.SIG_IGN) for number in catchable()}
    if not _state.printed:
        _state.printed = True
        _print_line(how)
    for number, handler in before.items():
        signal.signal(number, handler)


def _print_line(how: str) -> None:
    line = f"stopped by {signal_name(_state.received)}. {how or AGAIN}\n".encode(errors="replace")
    with suppress(OSError):  # the terminal may be gone
        if os.isatty(2):
            line = b"\r\x1b[K\x1b[33m" + line.rstrip() + b"\x1b[0m\n" + _SHOW_CURSOR
        os.write(2, line)
