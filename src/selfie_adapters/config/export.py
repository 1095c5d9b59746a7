"""What `selfie export` takes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from selfie_adapters.config.reading import Settings
from selfie_adapters.config.shared import DEVICE_DEFAULT
from selfie_adapters.config.types import InFile, Option

Format = Literal[
    "csv",
    "parquet",
    "training",
    "neuronpedia",
    "neuronpedia-upload",
    "neuronpedia-vectors",
    "neuronpedia-admin",
    "delphi",
    "saebench",
    "nla",
]


class ExportSettings(Settings):
    run: Annotated[InFile, Option(positional=True)]
    """Folder that selfie label wrote."""
    format: Format
    """csv and parquet hold every row, the others the best label of each vector, without blank ones
    and "no concept": training (a file for selfie train), neuronpedia (rows for its importer),
    neuronpedia-upload (features with activations, for its client), neuronpedia-vectors (labeled
    directions), neuronpedia-admin (its administrators' list), delphi (a folder), saebench
    (explanations_override), nla (Parquet with a sidecar)."""
    model_id: str | None = None
    """neuronpedia: its name of the model, such as llama3.1-8b."""
    source_id: str | None = None
    """neuronpedia: its name of the SAE, such as 19-llamascope-res-32k."""
    author_id: str | None = None
    """neuronpedia: the id of the user there whose labels they are."""
    layer: Annotated[int, Field(ge=0)] | None = None
    """Zero-based block the vectors are from, where the run does not state it."""
    sae: Annotated[str | None, Option(default="the one the run labelled")] = None
    """neuronpedia-upload: SAE of the latents: release:id, a SAELens folder, or demo."""
    prompts: str | None = None
    """neuronpedia-upload: file with one prompt per line, to look for activations in."""
    device: Annotated[str | None, Option(default=DEVICE_DEFAULT)] = None
    """neuronpedia-upload: where the model goes: cpu, cuda, cuda:1, mps, or auto."""

    @model_validator(mode="after")
    def _names_for_neuronpedia(self) -> ExportSettings:
        if not self.format.startswith("neuronpedia"):
            return self
        needs_source = self.format != "neuronpedia-vectors"
        if self.model_id is None or (needs_source and self.source_id is None):
            names = "--model-id and --source-id" if needs_source else "--model-id"
            raise ValueError(
                f"the format {self.format} needs {names}, Neuronpedia's names of the model and the "
                "SAE, such as llama3.1-8b and 19-llamascope-res-32k"
            )
        if self.format == "neuronpedia-admin" and self.author_id is None:
            raise ValueError("the format neuronpedia-admin needs --author-id")
        if self.format == "neuronpedia-upload" and self.prompts is None:
            raise ValueError(
                "the format neuronpedia-upload needs --prompts: each feature comes with activations"
            )
        return self
