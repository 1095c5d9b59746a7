"""The fuzz targets' files are in memory where the system has such a place: every input is written
as one or several, and what is tested writes more and flushes them to disk."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

_MEMORY = Path("/dev/shm")


@pytest.fixture
def tmp_path(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """A folder of the test's own; it stays if the test fails, for the sake of the failing input."""
    if not (_MEMORY.is_dir() and os.access(_MEMORY, os.W_OK)):
        yield tmp_path
        return
    place = Path(tempfile.mkdtemp(prefix="selfie-fuzz-", dir=_MEMORY))
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    failed = request.session.testsfailed
    yield place
    if request.session.testsfailed == failed:
        shutil.rmtree(place)
