"""How long work states its progress, without knowing who shows it."""

from __future__ import annotations

from collections.abc import Callable

StepProgress = Callable[[str, int, int], None]
"""Called with what is being done, how many are done, and how many there are."""


def silent(_what: str, _done: int, _of: int) -> None:
    """Show no progress."""
