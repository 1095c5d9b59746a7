"""Import torch and transformers in three quarters of the time."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


class _Process:
    """Whether this process is the command's own, in which nothing else leaves garbage."""

    own = False


def own_process() -> None:
    """Called by the command line: what `without_collection` imports is then never looked at again.

    In a process of somebody else, garbage that was there before would be kept as well.
    """
    _Process.own = True


@contextlib.contextmanager
def without_collection() -> Iterator[None]:
    """Inside, Python does not look for garbage.

    Importing makes some 600,000 objects, which stay; to go through them for reference cycles, again
    and again as they become more, takes a fifth of the time.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
        if _Process.own:
            gc.freeze()
    finally:
        gc.enable()
