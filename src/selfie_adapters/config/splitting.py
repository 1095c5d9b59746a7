"""How rows are held out, and what `selfie data split` takes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from selfie_adapters.config.reading import Settings
from selfie_adapters.config.types import Option


class SplitSettings(Settings):
    val_fraction: float = 0.1
    """Share of the vectors that is held out for validation, where they do not come with a split."""
    seed: int = 42
    """Seed of the split."""


class SplitFileSettings(SplitSettings):
    file: Annotated[Path, Option(positional=True)]
    """Training file, or label file in the training format."""
