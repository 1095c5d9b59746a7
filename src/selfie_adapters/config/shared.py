"""Settings that several commands share, each written once: model, prompt, mean, sampling."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from selfie_adapters.config.reading import Settings
from selfie_adapters.config.sampling import Sampling
from selfie_adapters.config.types import (
    Count,
    Dtype,
    InFile,
    NotNegative,
    Nucleus,
    Option,
    Positive,
    Seed,
    Split,
)

DEVICE_DEFAULT = "the first GPU, else the CPU"


class DeviceSettings(Settings):
    device: Annotated[str | None, Option(default=DEVICE_DEFAULT)] = None
    """Where the model goes: cpu, cuda, cuda:1, mps, or auto to spread it over all devices."""


class ModelSettings(DeviceSettings):
    """The frozen model."""

    model: InFile
    """Hub id, local folder, .gguf file, or demo."""
    dtype: Dtype = "auto"
    """Dtype of the model."""


class PairSettings(ModelSettings):
    """Pairs of held-out concepts, and how their vectors are labelled."""

    source: Annotated[InFile, Option(positional=True)]
    """Training file with held-out vectors, as selfie prepare topics makes it."""
    model: InFile = "demo"
    adapter: Annotated[InFile | None, Option(default="demo, for the model demo")] = None
    """Adapter file, hub path, or the name of a shipped one."""
    split: Split = "test"
    """Which vectors are used."""
    layer: Annotated[int, Field(ge=0)] = 12
    """Block of the vectors."""
    position: str = "name"
    """Kind of position of the vectors: name, -1."""
    pairs: Annotated[int, Field(ge=2)] = 100
    """How many pairs of concepts, drawn at random; no concept is in two of them."""
    max_new_tokens: Count = 12
    """Longest label, in tokens."""
    batch_size: Count = 50
    """Vectors at a time; a kill loses one batch at most."""
    seed: Seed = 0
    """Seed of everything that is drawn."""


class SplitSettings(Settings):
    """How rows are held out."""

    val_fraction: float = 0.1
    """Share of the vectors that is held out for validation, where they do not come with a split."""
    seed: int = 42
    """Seed of the split."""


class LoraSettings(Settings):
    lora: InFile | None = None
    """Folder or hub id of a LoRA (extra peft): states are taken from the model with it merged.
    Labels are written by the model itself."""


class PromptSettings(Settings):
    """The prompt whose placeholder each soft token replaces."""

    template: Annotated[str | None, Option(default="the adapter's, else the built-in one")] = None
    """Prompt text with the placeholder; selfie prompt show prints the built-in one."""
    placeholder: Annotated[str | None, Option(default="that of the prompt")] = None
    """The token of the prompt that each soft token replaces."""


class BindingSettings(PromptSettings):
    ignore_binding: bool = False
    """Continue although the adapter was trained with another model or prompt."""


class SamplingSettings(Settings):
    """How labels are generated."""

    temperature: NotNegative = 0.0
    """Sampling temperature; 0 is greedy."""
    top_p: Nucleus = 1.0
    """Sample from the most likely tokens that make up this share of the probability."""
    repetition_penalty: Positive = 1.0
    """Above 1: tokens that a label has already are less likely."""
    max_new_tokens: Count = 30
    """Longest label, in tokens."""

    @property
    def sampling(self) -> Sampling:
        return Sampling(self.temperature, self.top_p, self.repetition_penalty, self.max_new_tokens)


class DisplaySettings(Settings):
    show_withheld: bool = False
    """Show labels too that are withheld: those for "no concept", and those below the confidence's
    threshold. Files always have them."""
