"""Everything that decides which labels come out of a labelling run, and what fits a confidence."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, Field, field_validator, model_validator

from selfie_adapters.config.shared import (
    BindingSettings,
    DisplaySettings,
    ModelSettings,
    PromptSettings,
    SamplingSettings,
)
from selfie_adapters.config.types import Count, InFile, Numbers, Option, Seed, Share

TRAINED_SCALES = (1.0,)
UNTRAINED_SCALES = (0.5, 0.8, 1.3, 2.1, 3.4, 5.5)
"""Without an adapter nobody knows the right length, so a few are tried. In units of the mean
embedding norm."""
SAMPLED_TEMPERATURE = 0.7

RANKING = "likelihood"
"""What the labels of one vector are ranked by (labelling/choosing.py)."""
BY_GAIN = "gain"
"""What earlier versions ranked them by; their run folders and confidence files do not state it."""
BY_SHARE = "explained share"
"""What a concept's candidates are ranked by (labelling/decomposition)."""

EngineName = Literal["local", "vllm"]
"""Each is a module of labelling/engines."""


class SampledLabels(ModelSettings, PromptSettings, SamplingSettings):
    """Which vectors are labelled, through what, and how their labels are sampled."""

    source: Annotated[InFile, Option(positional=True)]
    """Training file (.json, .json.gz), vectors alone (.pt, .safetensors, .npy), or an SAE by its
    SAELens names, release:sae_id."""
    limit: Count | None = None
    """Label only the first N vectors."""
    scales: Annotated[
        tuple[float, ...],
        Numbers,
        Option(default="1; without adapter 0.5,0.8,1.3,2.1,3.4,5.5"),
    ] = TRAINED_SCALES
    """Numbers the adapter's input is multiplied by, such as 0.5,1,2: labels for each."""
    samples: Count = 1
    """Labels per vector and scale."""
    best_of: Count | None = None
    """Sample N labels per scale and keep the one that the vector makes most likely; with concepts,
    of N candidates the one that explains most (9 without it)."""
    temperature: Annotated[
        float, Field(ge=0, allow_inf_nan=False), Option(default="0 for one label, 0.7 for several")
    ] = 0.0
    """Sampling temperature; 0 is greedy."""
    seed: Seed = 0
    """Each label's own seed is derived from this one, its row, its scale and its sample."""
    batch_size: Annotated[Count | None, Option(default="256 on a CPU, up to 2,048 on a GPU")] = None
    """Labels per batch."""

    @field_validator("scales")
    @classmethod
    def _finite_scales(cls, scales: tuple[float, ...]) -> tuple[float, ...]:
        if not scales or not all(math.isfinite(scale) for scale in scales):
            raise ValueError("at least one number is expected, and all must be finite")
        if len(set(scales)) < len(scales):
            raise ValueError("each scale must be given only once")
        return scales

    def label_settings(self, **changes: Any) -> LabelSettings:
        """The settings of the run, with the defaults that depend on other values.

        changes: values that replace those of these settings.
        """
        given = self.model_fields_set
        known = {*LabelSettings.model_fields} & {*type(self).model_fields}
        values = {name: getattr(self, name) for name in known} | changes
        if "scales" not in given:
            values["scales"] = TRAINED_SCALES if values["adapter"] else UNTRAINED_SCALES
        if "temperature" not in given and max(self.samples, self.best_of or 1) > 1:
            values["temperature"] = SAMPLED_TEMPERATURE
        return LabelSettings.checked(**values)


class LabelSettings(SampledLabels, BindingSettings):
    """A labelling run, as it is written into the run folder's config.json."""

    adapter: Annotated[InFile | None, Option(default="demo, for the model demo")] = None
    """Adapter file, hub path owner/repo/file.safetensors, or a shipped one's name; none, and the
    default for other models, is untrained SelfIE."""
    confidence: InFile | None = None
    """Confidence file; the one next to the adapter if there is one and it fits."""
    mean: InFile | None = None
    """safetensors file with a tensor layer_{i} or layer_{i}_at_{position}, subtracted from the
    vectors first."""
    layer: int | None = None
    """Which of the means, where neither source nor adapter states it; with --text and --concept,
    the only block that is read."""
    split: Literal["train", "val", "test", "all"] = "all"
    """Vectors of this split of a training file, or all of them."""
    which: Literal["decoder", "encoder"] = "decoder"
    """Rows of an SAE's matrix that are labelled."""
    indices: Annotated[str | None, Option(hyphen=True)] = None
    """Label only these rows, such as 0:1000,5."""
    explain: bool = False
    """With best-of: keep all, ranked, and show why for the first few vectors."""
    concepts: Count | None = None
    """Label up to N concepts per vector: what a label explains of its vector is removed, and the
    rest is labelled again until a label is withheld. Each label gets the share of its vector that
    it explains; 1 measures this for the one label."""
    shard_size: Annotated[
        Count, Option(default="as in the folder that is resumed, else 512, on a GPU 2,048")
    ] = 512
    """Vectors per file."""
    engine: EngineName = Field("local", validation_alias=AliasChoices("engine", "writer"))
    """What generates the labels. Runs of earlier releases call it writer."""

    @property
    def sampled(self) -> int:
        """Labels sampled per vector and scale."""
        return self.best_of or self.samples

    @property
    def labels_per_vector(self) -> int:
        return self.sampled * len(self.scales)

    @property
    def rows_per_vector(self) -> int:
        """Labels per vector that are written: all of them, or the best; of concepts at most."""
        if self.concepts is not None:
            return self.concepts
        return 1 if self.best_of is not None and not self.explain else self.labels_per_vector

    @property
    def ranking(self) -> str | None:
        """What the best of a vector's labels is chosen by; None where only one is sampled."""
        if self.labels_per_vector == 1:
            return None
        return RANKING if self.concepts is None else BY_SHARE

    def way_of_drawing(self) -> dict[str, object]:
        """What a confidence must have been fitted with to hold for these labels."""
        ranking = {} if self.ranking is None else {"ranking": self.ranking}
        return {
            **ranking,
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


class LabelOptions(LabelSettings, DisplaySettings):
    """What `selfie label` takes: a run's settings, and how it is made and shown."""

    source: Annotated[
        InFile,
        Option(positional=True, default="40 nouns of the demo model, for a first look"),
    ] = "demo"
    text: str | None = None
    """A first look, without files: label the state at the last token of this text, at each layer
    that the means have."""
    concept: str | None = None
    """A first look, without files: label the state at the end of the adapter's question about this
    concept, "Tell me about {}."."""
    model: InFile = "demo"
    engine: Literal[EngineName, "ray"] = "local"  # pyright: ignore[reportIncompatibleVariableOverride]
    """What generates the labels: local; ray, the local one in several processes or on several
    machines; vllm (docs/labelling.md)."""
    workers: Count | None = None
    """Processes of the ray engine."""
    ray_address: Annotated[str | None, Option(default="one is started for this run")] = None
    """A running Ray cluster."""
    shard: str | None = None
    """I/N: label only every Nth file of the run, from file I on (0/4 to 3/4), into a folder of its
    own. Copy the folders into one, and the same command without --shard completes it."""

    @field_validator("shard")
    @classmethod
    def _is_one_of_n(cls, value: str | None) -> str | None:
        if value is None:
            return None
        number, slash, count = value.partition("/")
        digits = number.isascii() and number.isdigit() and count.isascii() and count.isdigit()
        if not (slash and digits and int(number) < int(count)):
            raise ValueError("I/N is expected, with I from 0 to N - 1, such as 0/4")
        return value

    @model_validator(mode="after")
    def _of_its_engine(self) -> LabelOptions:
        for name in ("workers", "ray_address"):
            if getattr(self, name) is not None and self.engine != "ray":
                flag = f"--{name.replace('_', '-')}"
                raise ValueError(f"{flag} belongs to --engine ray; the engine is {self.engine}")
        return self


class ConfidenceSettings(SampledLabels):
    """What `selfie confidence fit` takes. The confidence holds for labels sampled in this way."""

    source: Annotated[InFile, Option(positional=True)]
    """Training file with vectors that the adapter was not trained on."""
    adapter: InFile
    """Adapter file."""
    split: Literal["train", "val"] = "val"
    """Which vectors of the training file."""
    limit: Count | None = None
    """Only the first N vectors of each layer and position."""
    precision: Share = 0.8
    """Share of the labels shown that is right on new vectors: the lower end of its 95 % interval
    must reach it. Labels below the threshold that results are withheld."""
    control_rate: Share = 0.05
    """Share of vectors that mean nothing (random directions, the zero vector, vectors without a
    concept) that may be shown as a concept: the upper end of its 95 % interval."""
    controls: int = 200
    """How many random directions are labelled for each layer."""
    figure: str | None = None
    """SVG file for the reliability figure."""
