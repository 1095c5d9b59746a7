"""How much memory the objects read from a file may take."""

from __future__ import annotations

import sys
from typing import Any

from selfie_adapters.errors import DataError

MEMORY_FLOOR = 64 * 2**20
"""Bytes that reading any file may take, however small the file is."""
MEMORY_RATIO = 4
"""How many times its size a file above the floor may take in memory."""


class MemoryLimit:
    """Counts what is kept of a file, and refuses a file of tiny values before they fill the memory:
    a string of one letter takes 25 times its place in the file."""

    def __init__(self, where: str, size: int, held: int = 0) -> None:
        """where: what messages call the file; size: its bytes; held: bytes of them in memory."""
        self._where, self._size = where, size
        self._left = max(MEMORY_FLOOR, MEMORY_RATIO * size) - held

    def take(self, count: int) -> None:
        """Count `count` more bytes. Raises DataError when they are more than there may be."""
        self._left -= count
        if self._left < 0:
            raise too_large(self._where, self._size)


def size_of(value: Any) -> int:
    """Bytes that a string or number takes in memory, which is given out in pieces of 16."""
    return -(-sys.getsizeof(value) // 16) * 16


def too_large(where: str, size: int) -> DataError:
    """The error for a file or document of `size` bytes that would take too much memory."""
    return DataError(
        f"{where}: {size:,} bytes of tiny values; reading them takes "
        f"more than {MEMORY_RATIO} times that memory. Is this the right file?"
    )
