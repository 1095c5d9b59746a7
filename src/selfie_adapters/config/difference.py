"""What `selfie prepare difference` takes."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field, model_validator

from selfie_adapters.config.shared import LoraSettings, ModelSettings
from selfie_adapters.config.topics import read_positions
from selfie_adapters.config.types import Chat, InFile, Numbers, Option


class DifferenceSettings(ModelSettings, LoraSettings):
    """States of a model minus those of another one, at the same tokens of the same prompts."""

    prompts: Annotated[InFile, Option(positional=True)]
    """File with one prompt per line."""
    model: InFile
    """The model whose states count positive: hub id, folder, .gguf file, a LoRA's folder, demo."""
    minus: Annotated[InFile | None, Option(default="with --lora the model without it")] = None
    """The model whose states are subtracted."""
    layers: Annotated[tuple[int, ...], Numbers, Field(min_length=1)]
    """Blocks whose output is taken, zero-based; one section of the file each."""
    positions: Annotated[
        tuple[int, ...],
        BeforeValidator(read_positions),
        Field(min_length=1),
        Option(names=("positions", "position"), hyphen=True),
    ] = (-1,)
    """Tokens whose states are taken: numbers and ranges such as -1, 0:5 or -4:, counted from the
    end when negative; one section of the file each."""
    chat: Chat = "template"
    """The tokenizer's own chat template, a bare turn without system prompt, or none."""

    @model_validator(mode="after")
    def _two_models(self) -> DifferenceSettings:
        if self.minus is None and self.lora is None:
            raise ValueError("give the model to subtract (--minus MODEL), or a LoRA (--lora PATH)")
        for what, values in (("layers", self.layers), ("positions", self.positions)):
            if len(set(values)) != len(values):
                raise ValueError(f"{what} {list(values)}: give each once")
        return self
