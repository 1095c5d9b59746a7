"""The training configuration: the published YAML keys, checked, with one default each.

A configuration is one frozen object; it is written whole into the run folder, so nothing else
reads a default anywhere. Unknown keys are refused with the nearest valid one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, field_validator, model_validator

from selfie_adapters.config.settings import Settings, read_config
from selfie_adapters.config.types import (
    Count,
    Dtype,
    InFile,
    NotNegative,
    NotNegativeCount,
    Option,
    Positive,
    Seed,
)
from selfie_adapters.errors import nearest

ADAPTER_KINDS = {
    "identity": False,
    "scale_only": False,
    "scalar_affine": False,
    "low_rank_only": True,
    "scalar_affine_plus_low_rank": True,
    "full_rank": False,
}
"""Name of each kind of adapter → whether it takes low_rank_rank. Their classes are in
adapters/kinds.py, which needs torch; a kind that a program defines itself is added here when its
class is defined."""

SAMPLES_BY_DEFAULT = 5  # of log_sample_generations: true


class ModelSection(Settings):
    name: Annotated[InFile, Option(names=("model",))]
    """Hub id, local folder, .gguf file, or "demo"."""
    device_map: Annotated[
        str | dict[str, int | str] | None,
        Option(names=("device", "device-map"), default="the first GPU, else the CPU"),
    ] = None
    """Where the model goes: cpu, cuda, cuda:1, mps, or auto to spread it over all devices."""
    dtype: Dtype = "auto"
    """Dtype of the frozen weights; auto takes bfloat16 where it is faster."""
    enable_gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: slower, less memory."""
    load_in_8bit: bool = False
    """Quantize the frozen weights to 8 bits (extra quant)."""
    load_in_4bit: bool = False
    """Quantize the frozen weights to 4 bits, NF4 (extra quant)."""

    @model_validator(mode="after")
    def _one_quantization(self) -> ModelSection:
        if self.load_in_8bit and self.load_in_4bit:
            raise ValueError("load_in_8bit and load_in_4bit exclude each other; keep one")
        return self


class Ratio(Settings):
    """One group of a dataset mixture."""

    datasets: str | list[str]
    """dataset_name (all its layers) or dataset_name@l{layer}; several make one group."""
    ratio: Positive
    """Share of the group in an epoch, relative to the other groups."""


class DataSection(Settings):
    labels_file: InFile
    """Training file (.json or .json.gz), see docs/formats.md."""
    batch_size: Count = 80
    """Examples per batch."""
    shuffle: bool = True
    """A new order of the examples each epoch, drawn from the seed."""
    keep_labels_together: bool = False
    """Shuffle vectors instead of examples: labels of a vector stay neighbours, so that they share
    the work on its prompt: much faster where vectors have many labels."""
    num_workers: NotNegativeCount = 0
    """Accepted and not needed: vectors are memory-mapped, labels tokenized once."""
    strip_labels: bool = False
    """Remove whitespace around labels."""
    eos_token: str | None = None
    """Token that ends the answer after its closing quote; null takes the chat format's own."""
    train_dataset_ratios: list[Ratio] | None = None
    """Mixture of datasets for training, also as a mapping {datasets: ratio}; null takes
    everything as it is."""
    val_dataset_ratios: list[Ratio] | None = None
    """Mixture of datasets for validation."""
    resample_each_epoch: bool = True
    """Draw the larger groups of a mixture again in each epoch."""
    debug_dataset_mixing: bool = False
    """Print how many examples each dataset gives."""

    @field_validator("train_dataset_ratios", "val_dataset_ratios", mode="before")
    @classmethod
    def _mapping_as_list(cls, value: Any) -> Any:
        """{dataset_name: ratio}, as some published files have it, is one group for each name."""
        if isinstance(value, dict):
            return [{"datasets": name, "ratio": ratio} for name, ratio in value.items()]
        return value


class ProjectionSection(Settings):
    type: Annotated[str, Option(names=("adapter-kind",))] = "scalar_affine"
    """Kind of adapter: identity, scale_only, scalar_affine, low_rank_only,
    scalar_affine_plus_low_rank or full_rank."""
    normalize_input: bool = True
    """Scale vectors to unit norm first."""
    init_scale: Positive = 30.0
    """Scale at the start, in units of the vector."""
    low_rank_rank: Count | None = None
    """Rank r of the low-rank part; needed by the low-rank kinds, without meaning for the others."""
    low_rank_init_factor: NotNegative = 0.01
    """Size of the low-rank part at the start, relative to init_scale."""
    init: Annotated[Literal["published", "closed_form"], Option(names=("adapter-init",))] = (
        "published"
    )
    """Initial values: published (from init_scale), or closed_form, computed from the training
    vectors and the embeddings of their labels (docs/training-quality.md)."""

    @field_validator("type")
    @classmethod
    def _known_kind(cls, kind: str) -> str:
        if kind not in ADAPTER_KINDS:
            raise ValueError(f"unknown kind of adapter. {nearest(kind, ADAPTER_KINDS)}".rstrip("."))
        return kind

    @model_validator(mode="after")
    def _rank_where_it_is_needed(self) -> ProjectionSection:
        if ADAPTER_KINDS[self.type] and self.low_rank_rank is None:
            raise ValueError(f"type {self.type} needs low_rank_rank, for example 16")
        return self


class SoftPromptSection(Settings):
    template: str | None = None
    """The fixed question with the placeholder; null takes the built-in one for the tokenizer."""
    reserved_token: Annotated[str | None, Option(names=("placeholder",))] = None
    """The placeholder: one existing token that each soft token replaces."""


class TrainingSection(Settings):
    learning_rate: NotNegative = 0.01
    """Peak learning rate; 0 leaves the adapter at its initial values."""
    scale_learning_rate: NotNegative | None = None
    """Rate of log_scale alone; null takes learning_rate, 0 freezes it."""
    direction_learning_rate: NotNegative | None = None
    """Rate of U, V and weight alone; null takes learning_rate, 0 freezes them."""
    bias_learning_rate: NotNegative | None = None
    """Rate of the bias alone; null takes learning_rate, 0 freezes it."""
    optimizer_type: Literal["adamw", "sgd_momentum"] = "adamw"
    """Optimizer."""
    weight_decay: NotNegative = 0.01
    """Weight decay; log_scale is never decayed."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of sgd_momentum."""
    num_epochs: Count = 2
    """Passes over the training examples."""
    max_steps: Count | None = None
    """Stop after N optimizer steps; the schedule ends there too."""
    gradient_accumulation_steps: Count = 1
    """Batches per optimizer step."""
    gradient_clip_norm: Positive = 0.5
    """Largest gradient norm over all of the adapter's parameters."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the target spread over the vocabulary; in training only."""
    max_loss: Positive = 100.0
    """Each token's loss is clamped at this value, in nats."""
    scheduler_type: Literal["cosine", "linear", "constant"] = "cosine"
    """How the rate falls after the warm-up."""
    warmup_steps: NotNegativeCount = 10
    """Optimizer steps over which the rate rises from nearly 0."""
    validation_every_n_steps: Count = 50
    """Optimizer steps between validations."""
    val_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the validation examples that is used."""
    checkpoint_every_n_steps: Count = 100
    """Optimizer steps between checkpoints."""
    keep_last: Count = 2
    """Checkpoints that are kept; older ones are removed."""
    checkpoint_dir: str = "runs"
    """Folder of run folders; this run's is checkpoint_dir/experiment_name."""
    save_final_checkpoint: bool = True
    """Write adapter_final at the end."""
    resume_from_checkpoint: InFile | None = None
    """Adapter file (.pt or .safetensors) to continue from, at the step it was saved at."""


class LoggingSection(Settings):
    use_mlflow: bool = False
    """Mirror metrics to mlflow."""
    mlflow_tracking_uri: str | None = None
    """Where mlflow keeps its runs; null takes the folder mlruns next to the run folder."""
    mlflow_experiment_name: str | None = None
    """Experiment in mlflow; null takes experiment_name."""
    use_wandb: bool = False
    """Mirror metrics to Weights & Biases."""
    wandb_project: str | None = None
    """Project in wandb; null takes selfie-adapters."""
    wandb_entity: str | None = None
    """Team or user in wandb."""
    wandb_run_name: str | None = None
    """Run name in wandb; null takes experiment_name."""
    use_trackio: bool = False
    """Mirror metrics to trackio, which keeps them on this machine."""
    trackio_project: str | None = None
    """Project in trackio; null takes selfie-adapters."""
    log_every_n_steps: Count = 1
    """Optimizer steps between rows of metrics.jsonl."""
    log_sample_generations: NotNegativeCount = 0
    """How many held-out vectors are labelled during training, to be looked at; true means 5."""
    log_generations_every_n_steps: Count = 100
    """Optimizer steps between those labels."""
    log_singular_values_every_n_steps: NotNegativeCount | None = 50
    """Optimizer steps between singular values of the adapter's matrix, if any; null for never."""

    @field_validator("log_sample_generations", mode="before")
    @classmethod
    def _flag_or_count(cls, value: Any) -> Any:
        return SAMPLES_BY_DEFAULT if value is True else value


class TrainConfig(Settings):
    """One training run. The sections and keys are those of the published configurations."""

    experiment_name: str = "experiment"
    """Name of the run and of its folder."""
    seed: Seed = 42
    """Seed of initial values, order of examples, and validation subset."""
    model: Annotated[ModelSection, Option(prefix="")]
    data: Annotated[DataSection, Option(prefix="")]
    projection: Annotated[ProjectionSection, Option(prefix="")] = ProjectionSection()
    soft_prompt: Annotated[SoftPromptSection, Option(prefix="")] = SoftPromptSection()
    training: Annotated[TrainingSection, Option(prefix="")] = TrainingSection()
    logging: Annotated[LoggingSection, Option(prefix="")] = LoggingSection()

    @field_validator("experiment_name")
    @classmethod
    def _one_folder(cls, name: str) -> str:
        if not name.strip() or name in {".", ".."} or "/" in name or "\\" in name:
            raise ValueError("the name of a single folder is expected, without slashes")
        if not name.isprintable() or len(name.encode()) > 200:
            raise ValueError("a folder's name has at most 200 bytes and no control characters")
        return name


def load_config(
    path: str | Path, overrides: Sequence[str] = (), given: Mapping[str, Any] | None = None
) -> TrainConfig:
    """Read a YAML file, change it by `overrides` ("training.learning_rate=0.02"), and check it.

    given: values by section that replace the file's. A path in the file is relative to the working
    directory, or, if nothing is there, to the file.
    Raises MissingFileError, or ConfigError that lists every problem with its place and fix.
    """
    return read_config(path, TrainConfig, overrides, {"experiment_name": Path(path).stem}, given)


def dump_config(config: TrainConfig) -> str:
    """YAML that `load_config` reads back to an equal object."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
