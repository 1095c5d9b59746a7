"""Options of selfie adapter push and pull."""

from __future__ import annotations

from typing import Annotated

from selfie_adapters.config.reading import Settings
from selfie_adapters.config.types import InFile, Option


class PushSettings(Settings):
    source: Annotated[str, Option(positional=True)]
    """Adapter file, a folder that holds exactly one, or a training run's folder (its best one)."""
    repo: Annotated[str, Option(positional=True)]
    """Repository on the hub, owner/name."""
    upload: bool = False
    """Upload; without it the files and the card are only shown."""
    mean: Annotated[InFile | None, Option(default="{adapter}.mean.safetensors", file=True)] = None
    """safetensors file with the mean vectors of the adapter's inputs."""
    confidence: Annotated[InFile | None, Option(default="{adapter}.confidence.json", file=True)] = (
        None
    )
    """Calibration, as selfie confidence fit writes it."""
    evaluation: Annotated[tuple[str, ...], Option(default="those in the adapter's folder")] = ()
    """Folders of selfie eval loss, naming or retrieval whose figures the card shows."""
    private: bool = False
    """Make a repository that does not exist yet private."""


class PullSettings(Settings):
    repo: Annotated[str, Option(positional=True)]
    """Repository on the hub, owner/name, with adapter.safetensors."""
