"""The options of `selfie read`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import model_validator

from selfie_adapters.config.labelling import BY_SHARE
from selfie_adapters.config.shared import (
    BindingSettings,
    DisplaySettings,
    LoraSettings,
    ModelSettings,
)
from selfie_adapters.config.types import Chat, Count, InFile, Option, Positive, Seed


class ReadSettings(ModelSettings, LoraSettings, BindingSettings, DisplaySettings):
    prompt: Annotated[str | None, Option(positional=True)] = None
    """The text to read."""
    messages: InFile | None = None
    """JSON file with a conversation to read in place of the text: a list of messages with role and
    content."""
    generate: Count | None = None
    """Let the model answer first, greedily and with at most N tokens, and read its answer."""
    adapter: Annotated[InFile | None, Option(default="demo, for the model demo")] = None
    """Adapter file, hub path, or a shipped one's name."""
    model: InFile = "demo"
    layers: Annotated[str | None, Option(hyphen=True, default="all, or those that --mean has")] = (
        None
    )
    """Blocks, zero-based: 24, 4:28:4, 0,5,9."""
    positions: Annotated[str | None, Option(hyphen=True, default="all but special ones")] = None
    """Tokens, counted like layers; negative ones from the end. With --generate the default is the
    answer."""
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
    concepts: Count | None = None
    """Label up to N concepts per cell, as selfie label --concepts does: each label gets the share
    of its state that it explains."""
    best_of: Annotated[Count | None, Option(default="9")] = None
    """With concepts: of N candidates, one greedy and the others sampled, take the label that
    explains most."""
    temperature: Annotated[Positive | None, Option(default="0.7")] = None
    """With concepts: sampling temperature of the candidates."""
    seed: Seed = 0
    """With concepts: seed of the candidates."""
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

    @model_validator(mode="after")
    def _one_prompt(self) -> ReadSettings:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError(
                'give either a text to read (selfie read "Tell me about owls.") or --messages FILE'
            )
        if self.messages is not None and self.chat not in (None, "template"):
            raise ValueError(
                f"--messages needs the chat template; --chat {self.chat} is a format for a "
                "single text"
            )
        if self.concepts is None:
            for name in ("best_of", "temperature", "seed"):
                if name in self.model_fields_set and getattr(self, name) not in (None, 0):
                    raise ValueError(
                        f"--{name.replace('_', '-')} is for the candidates of --concepts N, which "
                        "is not given (--concepts 1 takes the best of them for each cell)"
                    )
        return self

    @property
    def candidates(self) -> dict[str, Any]:
        """How a cell's labels are sampled where that is not one greedy label
        (`LabelSettings.way_of_drawing`)."""
        if self.best_of is None or self.best_of == 1:
            return {}
        several = {"samples": self.best_of, "best_of": True, "temperature": self.temperature}
        return {**several, "ranking": BY_SHARE}
