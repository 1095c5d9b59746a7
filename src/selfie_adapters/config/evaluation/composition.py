"""Everything that decides the results of the composition protocol."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from selfie_adapters.config.shared import ModelSettings
from selfie_adapters.config.types import Count, InFile, Numbers, Option, Seed, Split


class CompositionSettings(ModelSettings):
    """Mix two held-out concepts into one vector and count which of them are named."""

    source: Annotated[InFile, Option(positional=True)]
    """Training file with held-out vectors, as selfie prepare topics makes it."""
    model: InFile = "demo"
    adapter: Annotated[InFile | None, Option(default="demo, for the model demo")] = None
    """Adapter file, hub path, or the name of a shipped one."""
    split: Split = "test"
    """Which vectors are mixed."""
    layer: Annotated[int, Field(ge=0)] = 12
    """Block whose vectors are mixed."""
    position: str = "name"
    """Kind of position of the vectors: name, -1."""
    shares: Annotated[
        tuple[Annotated[float, Field(ge=0.5, le=1)], ...], Field(min_length=1), Numbers
    ] = (0.9, 0.75, 0.6, 0.5)
    """Shares of the first concept; the second one has the rest."""
    pairs: Annotated[int, Field(ge=2)] = 100
    """How many pairs of concepts are mixed, drawn at random; no concept is in two of them."""
    concepts: Annotated[int, Field(ge=2)] = 2
    """How many concepts are read of a vector (selfie label --concepts)."""
    max_new_tokens: Count = 12
    """Longest label, in tokens."""
    batch_size: Count = 50
    """Vectors at a time; a kill loses one batch at most."""
    seed: Seed = 0
    """Seed of the pairs and of sampled candidates."""
