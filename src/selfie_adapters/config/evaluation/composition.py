"""Everything that decides the results of the composition protocol."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from selfie_adapters.config.shared import PairSettings
from selfie_adapters.config.types import Count, Numbers, Positive


class CompositionSettings(PairSettings):
    """Mix two held-out concepts into one vector and count which of them are named."""

    shares: Annotated[
        tuple[Annotated[float, Field(ge=0.5, le=1)], ...], Field(min_length=1), Numbers
    ] = (0.9, 0.75, 0.6, 0.5)
    """Shares of the first concept; the second one has the rest."""
    concepts: Annotated[int, Field(ge=2)] = 2
    """How many concepts are read of a vector (selfie label --concepts)."""
    best_of: Count = 9
    """For each concept, of N candidates, one greedy and the others sampled, take the label that
    explains most."""
    temperature: Positive = 0.7
    """Sampling temperature of the candidates."""
