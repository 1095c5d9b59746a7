"""Everything that decides the results of the detection protocol."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from selfie_adapters.config.shared import ChatSettings, ModelSettings
from selfie_adapters.config.types import Count, InFile, NotNegative, Numbers, Seed

RESERVED = (
    *("windows", "calibration"),
    *("lens words", "cosine words", "ridge words", "top tokens"),
)
"""Names of rows, and of conditions that runs have of their own."""
_CONTROLS = (": shuffled", ": same start")


class DetectionSettings(ModelSettings):
    """Let a judge who reads labels tell which passages activate their latents."""

    texts: InFile
    """Passages in which the latents are looked for: a .txt file with one per line, or JSON lines
    with "text"."""
    labels: Annotated[dict[str, InFile], Field(min_length=1)]
    """Name of a condition: label file (docs/formats.md), such as trained_labels.jsonl of a scoring
    run with evaluation_mode label_generation_only. The first label of a latent is judged."""
    task: Literal["detection", "fuzzing"] = "detection"
    """detection: which windows fit the label; fuzzing: in which windows the marked tokens do."""
    model: InFile = "demo"
    """Model whose states the SAE reads: hub id, local folder, .gguf file, or demo."""
    sae: InFile = "demo"
    """SAELens folder, release:sae_id, or demo."""
    force_sae: bool = False
    """Use an SAE that was trained on other states than this model's."""
    judge: ChatSettings = ChatSettings()
    """The chat model that judges; default: the evaluated model itself."""
    judge_by: Literal["answers", "likelihood"] = "answers"
    """answers: the judge is asked and answers 1 or 0 for each window, as in delphi; likelihood: how
    much more likely the label is after the window than after other windows, for models in this
    process that are too small to answer; needs calibration_labels."""
    calibration_labels: InFile | None = None
    """Label file with the labels of other latents, on which the threshold of judge_by: likelihood
    is chosen; those of split val, if it has splits."""
    training_labels: InFile | None = None
    """Label file of the latents that the ridge probe is fitted on: those of split train, or of a
    file without splits all, that are not judged; null: calibration_labels."""
    references: Count = 16
    """Other windows that the likelihood of a label is compared with."""
    latents: Annotated[list[int] | None, Numbers] = None
    """Latents that are judged; null: those that have a label in every file."""
    limit: Count | None = None
    """Judge N of them, sampled at random; null: all. As many at most are used for calibration."""
    windows: Count = 10
    """Windows per latent that activate it, and as many that do not."""
    window: Annotated[int, Field(ge=4, le=4096)] = 32
    """Tokens per window."""
    context: Annotated[int, Field(ge=4, le=65536)] = 256
    """Tokens of a text that are read; the rest is dropped."""
    shown: Count = 5
    """Windows per question to the judge."""
    threshold: NotNegative = 0.0
    """A window activates a latent if its highest activation is above; in the SAE's units."""
    temperature: NotNegative = 0.0
    """Of the judge."""
    batch_size: Count = 16
    """Passages per forward pass."""
    seed: Seed = 0

    @field_validator("labels")
    @classmethod
    def _names(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value:
            if name in RESERVED or name.endswith(_CONTROLS) or "/" in name:
                raise ValueError(f"the name {name} is reserved, or contains /")
        return value

    @model_validator(mode="after")
    def _judge_of_likelihood(self) -> DetectionSettings:
        if self.judge_by == "answers":
            return self
        if self.calibration_labels is None:
            raise ValueError("judge_by: likelihood needs calibration_labels")
        if self.judge.url is not None:
            raise ValueError("judge_by: likelihood needs a judge in this process (no url)")
        return self
