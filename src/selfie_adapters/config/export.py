"""What `selfie export` takes."""

from __future__ import annotations

from typing import Annotated, Literal

from selfie_adapters.config.reading import Section
from selfie_adapters.config.types import InFile, Option


class ExportSettings(Section):
    run: Annotated[InFile, Option(positional=True)]
    """Folder that selfie label wrote."""
    format: Literal["csv", "parquet", "neuronpedia", "training"]
    """csv and parquet hold every row; neuronpedia (explanation rows) and training (a file for
    selfie train) the best label of each vector, without blank ones and "no concept"."""
    model_id: str | None = None
    """neuronpedia: its name of the model, such as llama3.1-8b."""
    source_id: str | None = None
    """neuronpedia: its name of the SAE, such as 19-llamascope-res-32k."""
    layer: int | None = None
    """training: zero-based block the vectors are from, where the run does not state it."""
