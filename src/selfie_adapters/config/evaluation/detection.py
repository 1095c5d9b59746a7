"""Everything that decides the results of the detection protocol."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from selfie_adapters.config.chat import ChatSettings
from selfie_adapters.config.shared import ModelSettings
from selfie_adapters.config.types import Count, InFile, NotNegative, Numbers, Seed


class DetectionSettings(ModelSettings):
    """Let a judge who reads labels tell which passages activate their latents."""

    texts: InFile
    """Passages in which the latents are looked for: a .txt file with one per line, or JSON lines
    with "text"."""
    labels: Annotated[dict[str, InFile], Field(min_length=1)]
    """Name of a condition: label file (docs/formats.md), such as trained_labels.jsonl of a scoring
    run with evaluation_mode label_generation_only. The first label of a latent is judged."""
    task: Literal["detection", "fuzzing"] = "detection"
    """detection: which windows fit the label; fuzzing: in which windows the marked tokens do."""
    model: InFile = "demo"
    """Model whose states the SAE reads: hub id, local folder, .gguf file, or demo."""
    sae: InFile = "demo"
    """SAELens folder, release:sae_id, or demo."""
    force_sae: bool = False
    """Use an SAE that was trained on other states than this model's."""
    judge: ChatSettings = ChatSettings()
    """The chat model that judges; default: the evaluated model itself."""
    latents: Annotated[list[int] | None, Numbers] = None
    """Latents that are judged; null: those that have a label in every file."""
    limit: Count | None = None
    """Judge N of them, drawn at random; null: all."""
    windows: Count = 10
    """Windows per latent that activate it, and as many that do not."""
    window: Annotated[int, Field(ge=4, le=4096)] = 32
    """Tokens per window."""
    context: Annotated[int, Field(ge=4, le=65536)] = 256
    """Tokens of a text that are read; the rest is dropped."""
    shown: Count = 5
    """Windows per question to the judge."""
    threshold: NotNegative = 0.0
    """A window activates a latent if its highest activation is above; in the SAE's units."""
    temperature: NotNegative = 0.0
    """Of the judge."""
    batch_size: Count = 16
    """Passages per forward pass."""
    seed: Seed = 0

    @field_validator("labels")
    @classmethod
    def _names(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value:
            if name == "windows" or name.endswith(": shuffled") or "/" in name:
                raise ValueError(f"the name {name} is reserved, or contains /")
        return value
