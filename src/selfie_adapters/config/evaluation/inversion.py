"""Everything that decides the results of the inversion protocol."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from selfie_adapters.config.shared import ModelSettings
from selfie_adapters.config.types import Count, InFile, Option, Seed, Split


class InversionSettings(ModelSettings):
    """Read prompts that describe a concept without naming it, and count labels that are its name
    and labels that are words of the prompt."""

    topics: InFile = "concepts"
    """Concepts with a gloss among their labels ("owl, a bird that …"): concepts, or a topics
    file."""
    descriptions: InFile | None = None
    """Folder of a selfie eval taboo, whose descriptions are read; null: the glosses."""
    model: InFile = "demo"
    adapter: Annotated[InFile | None, Option(default="demo, for the model demo")] = None
    """Adapter file, hub path, or the name of a shipped one."""
    mean: InFile | None = None
    """File of mean vectors that are subtracted; null: the one next to the adapter."""
    layers: Annotated[str, Option(hyphen=True)] = "12,24"
    """Blocks that are read, such as 8,12 or 8:21, at the last token of the prompt."""
    question: str = "Tell me about {}."
    """The prompt, with {} for the description; the same with the name is the positive control."""
    split: Split = "test"
    """Which concepts are measured, where they come with a split."""
    limit: Count | None = None
    """Measure N of them, drawn at random; null: all."""
    training: Annotated[int, Field(ge=0)] = 1000
    """Training concepts, by name, that the ridge probe is fitted on; 0 omits it."""
    batch_size: Count = 64
    """Vectors at a time; a kill loses one batch at most."""
    seed: Seed = 0
    """Seed of the concepts that are taken and of the shuffled control."""
