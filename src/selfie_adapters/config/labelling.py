"""Everything that decides which labels come out of a labelling run."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import AliasChoices, Field, field_validator

from selfie_adapters.config.reading import Section
from selfie_adapters.config.sampling import Sampling
from selfie_adapters.config.types import Count, NotNegative, Positive, Seed

TRAINED_SCALES = (1.0,)
UNTRAINED_SCALES = (0.5, 0.8, 1.3, 2.1, 3.4, 5.5)
"""Without an adapter nobody knows the right length, so a few are tried. In units of the mean
embedding norm."""

EngineName = Literal["local", "vllm"]
"""Each is a module of labelling/engines."""


class LabelSettings(Section):
    """A labelling run, as it is written into the run folder's config.json."""

    source: str
    """Training file, vector file, or SAELens release:id."""
    model: str
    adapter: str | None = None
    """Adapter file or hub path; none is untrained SelfIE."""
    confidence: str | None = None
    """Confidence file, where there is one for this adapter."""
    mean: str | None = None
    """safetensors file with layer_{i}, subtracted from the vectors."""
    layer: int | None = None
    """Which of its tensors, where neither the source nor the adapter states it."""
    split: Literal["train", "val", "test", "all"] = "all"
    which: Literal["decoder", "encoder"] = "decoder"
    """Rows of a SAE's matrix that are labelled."""
    indices: str | None = None
    limit: Count | None = None
    scales: tuple[float, ...] = TRAINED_SCALES
    samples: Count = 1
    best_of: Count | None = None
    explain: bool = False
    temperature: NotNegative = 0.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    repetition_penalty: Positive = 1.0
    max_new_tokens: Count = 30
    seed: Seed = 0
    batch_size: Count | None = None
    """Rows at a time; null: as many as suit the model's device."""
    shard_size: Count = 512
    """Vectors a file."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    template: str | None = None
    """Prompt text in place of the adapter's, or of the tokenizer's."""
    placeholder: str | None = None
    """The token of the prompt that each soft token replaces."""
    device: str | None = None
    """Where the model goes: cpu, cuda, cuda:1, mps, auto; null: the first GPU, else the CPU."""
    ignore_binding: bool = False
    engine: EngineName = Field("local", validation_alias=AliasChoices("engine", "writer"))
    """What generates the labels; ray is the local one in several processes. Runs of earlier
    releases call it writer."""

    @field_validator("scales")
    @classmethod
    def _finite_scales(cls, scales: tuple[float, ...]) -> tuple[float, ...]:
        if not scales or not all(math.isfinite(scale) for scale in scales):
            raise ValueError("at least one number is expected, and finite ones only")
        if len(set(scales)) < len(scales):
            raise ValueError("each scale once")
        return scales

    @property
    def sampled(self) -> int:
        """Labels sampled per vector and scale."""
        return self.best_of or self.samples

    @property
    def sampling(self) -> Sampling:
        return Sampling(self.temperature, self.top_p, self.repetition_penalty, self.max_new_tokens)

    @property
    def labels_per_vector(self) -> int:
        return self.sampled * len(self.scales)

    @property
    def rows_per_vector(self) -> int:
        """Labels per vector that are written: all of them, or the best."""
        return 1 if self.best_of is not None and not self.explain else self.labels_per_vector

    def way_of_drawing(self) -> dict[str, object]:
        """What a confidence must have been fitted with to hold for these labels."""
        return {
            "scales": list(self.scales),
            "samples": self.sampled,
            "best_of": self.best_of is not None,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "repetition_penalty": self.repetition_penalty,
            "max_new_tokens": self.max_new_tokens,
            "template": self.template,
            "placeholder": self.placeholder,
        }
