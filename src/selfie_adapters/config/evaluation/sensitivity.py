"""Everything that decides the results of the sensitivity protocol."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from selfie_adapters.config.shared import PairSettings
from selfie_adapters.config.types import Numbers


class SensitivitySettings(PairSettings):
    """Add a concept, a style or noise to a vector and measure when the label follows."""

    strengths: Annotated[
        tuple[Annotated[float, Field(gt=0, le=1000)], ...], Field(min_length=1), Numbers
    ] = (0.25, 0.5, 1.0, 2.0, 4.0)
    """Lengths of what is added, in units of the vector's length."""
