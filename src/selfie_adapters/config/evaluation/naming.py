"""Everything that decides the results of the naming protocol."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from selfie_adapters.config.shared import ModelSettings
from selfie_adapters.config.types import Count, InFile, Option, Seed, Split

RESERVED = {"adapter", "untrained", "logit lens", "cosine", "ridge probe"}
"""Names of conditions that are there without being asked for."""


class NamingSettings(ModelSettings):
    """Count right, related and wrong labels of held-out vectors, block by block, with controls."""

    source: Annotated[InFile, Option(positional=True)]
    """Training file with held-out vectors, as selfie prepare topics makes it."""
    model: InFile = "demo"
    adapter: Annotated[InFile | None, Option(default="demo, for the model demo")] = None
    """Adapter file, hub path, or the name of a shipped one."""
    adapters: dict[str, InFile] = Field(default_factory=dict)
    """Several in place of one, name: adapter file, hub path, or the name of a shipped one. Those
    that differ in their training seed alone are one recipe, with intervals over its seeds."""
    split: Split = "test"
    """Which vectors are measured."""
    layers: Annotated[str | None, Option(hyphen=True)] = None
    """Blocks that are measured, such as 8,12 or 8:21; null: all of the file. Blocks that are in the
    folder of the results already are not measured again."""
    limit: Count | None = None
    """Measure N topics, drawn at random, the same in every section; null: all."""
    retrieval: Annotated[int, Field(ge=0)] = 60
    """Vectors per section that look for their names among 60; 0 skips it, the slowest part."""
    seed: Seed = 0
    """Seed of everything that is drawn."""

    @model_validator(mode="after")
    def _adapters_apart(self) -> NamingSettings:
        if self.adapter is not None and self.adapters:
            raise ValueError("adapter and adapters are both given; give one of them")
        for name in self.adapters:
            if name in RESERVED or ": " in name:
                raise ValueError(
                    f"the name {name} is reserved for a control; give the adapter another name"
                )
        return self
