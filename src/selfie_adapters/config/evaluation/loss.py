"""Everything that decides the results of the loss protocol."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from selfie_adapters.config.labelling import UNTRAINED_SCALES
from selfie_adapters.config.shared import ModelSettings
from selfie_adapters.config.training import SoftPromptSection
from selfie_adapters.config.types import Count, InFile, Numbers, Option, Positive, Seed, Split

NamedFiles = Annotated[dict[str, InFile], Field(min_length=1)]


class LossSettings(ModelSettings):
    """Measure the loss of held-out labels: every adapter on every training file, with controls."""

    adapters: NamedFiles
    """Name: adapter file or hub path."""
    datasets: NamedFiles
    """Name: training file."""
    split: Split | None = None
    """Which vectors of the training files; null: test where one of them has it, else val."""
    limit: Count | None = None
    """Take N vectors of each data set, drawn at random, with all labels."""
    strip_labels: bool = False
    """Remove whitespace around labels."""
    soft_prompt: Annotated[SoftPromptSection, Option(prefix="")] = SoftPromptSection()
    """Of adapters whose file does not state it (published ones); null takes the built-in prompt."""
    eos_token: str | None = None
    """Token that ends the answer; null takes the chat format's own."""
    max_loss: Positive = 100.0
    """Each token's loss is clamped at this value, in nats."""
    untrained_scales: Annotated[tuple[Positive, ...], Field(min_length=1), Numbers] = (
        UNTRAINED_SCALES
    )
    """Of the unit vector without an adapter, in mean embedding norms; of several the best on
    `choose_on` vectors is taken."""
    choose_on: Count = 100
    """Vectors on which a scale is chosen: of val, or of train where val is measured."""
    batch_size: Count = 256
    """Vectors at a time; a kill loses one batch at most."""
    seed: Seed = 0
    """Seed of the controls and of the vectors that are taken."""

    @model_validator(mode="after")
    def _names_for_files(self) -> LossSettings:
        for name in {"untrained", "identity"} & {*self.adapters}:
            raise ValueError(
                f"the name {name} is reserved for a control; give the adapter another name"
            )
        return self
