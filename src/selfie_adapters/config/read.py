"""What `selfie read` takes."""

from __future__ import annotations

from typing import Annotated

from selfie_adapters.config.shared import (
    BindingSettings,
    DisplaySettings,
    LoraSettings,
    ModelSettings,
)
from selfie_adapters.config.types import Chat, Count, InFile, Option


class ReadSettings(ModelSettings, LoraSettings, BindingSettings, DisplaySettings):
    prompt: Annotated[str, Option(positional=True)]
    """The text to read."""
    adapter: Annotated[InFile | None, Option(default="demo, for the model demo")] = None
    """Adapter file, hub path, or a shipped one's name."""
    model: InFile = "demo"
    layers: Annotated[str | None, Option(hyphen=True, default="all, or those that --mean has")] = (
        None
    )
    """Blocks, zero-based: 24, 4:28:4, 0,5,9."""
    positions: Annotated[str | None, Option(hyphen=True, default="all but special ones")] = None
    """Tokens, counted like layers; negative ones from the end."""
    mean: Annotated[InFile | None, Option(default="the file in the adapter's folder, if any")] = (
        None
    )
    """File of mean vectors (layer_12, or layer_12_at_-1 and layer_12_at_name), subtracted first."""
    confidence: Annotated[
        InFile | None, Option(default="the file in the adapter's folder, if it fits")
    ] = None
    """Calibration file (selfie confidence fit)."""
    chat: Annotated[
        Chat | None,
        Option(default="that of the adapter's training vectors, else of the means, else template"),
    ] = None
    """The tokenizer's own chat template, a bare turn without system prompt, or none."""
    special: bool = False
    """Read special tokens too."""
    find: str = ""
    """Mark cells whose label names this word."""
    lens: bool = False
    """Show the logit lens's word under each label."""
    max_new_tokens: Count = 30
    """Longest label, in tokens."""
    batch_size: Count = 64
    """Cells at a time."""
