"""Settings that several commands share, each written once: model, prompt, sampling, chat model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, model_validator

from selfie_adapters.config.settings import Settings
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


@dataclass(frozen=True)
class Sampling:
    """How an answer is generated. temperature 0 is greedy; seeds are given per row.

    top_p: the nucleus, in (0, 1]. repetition_penalty: 1 changes nothing. max_new_tokens: per
    answer. stop_at_quote: whether a closing quote ends an answer, or only the end token does.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    max_new_tokens: int = 30
    stop_at_quote: bool = True


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


class ChatSettings(Settings):
    """A model in this process, or one of a server."""

    model: str | None = None
    """The model's name at `url`; without url a hub id or folder. null: the evaluated model."""

    url: str | None = None
    """Address that the protocol's paths are appended to, such as http://localhost:8000/v1."""

    protocol: Literal["openai", "anthropic_batches"] = "openai"
    """openai: POST url/chat/completions. anthropic_batches: all requests are submitted to
    url/messages/batches at once, and the answers are fetched within a day, at half the price."""

    api_key_env: str | None = None
    """Environment variable with the server's key; null sends none."""

    concurrency: int = Field(default=8, ge=1, le=1024)
    """Requests open at a time, where there is a url."""

    batch_size: int = Field(default=64, ge=1)
    """Conversations written at a time, in this process."""

    @model_validator(mode="after")
    def _whole(self) -> ChatSettings:
        if self.url is not None and self.model is None:
            raise ValueError("url needs the model's name there (model)")
        if self.url is None and self.api_key_env is not None:
            raise ValueError("api_key_env needs a server (url)")
        if self.protocol == "anthropic_batches" and self.url is None:
            raise ValueError("anthropic_batches needs url, such as https://api.anthropic.com/v1")
        return self
