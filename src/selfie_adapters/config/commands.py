"""Options of the commands that have few: one class per command, in the order of the table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from selfie_adapters.config.reading import Settings
from selfie_adapters.config.shared import (
    DeviceSettings,
    ModelSettings,
    PromptSettings,
    SplitSettings,
)
from selfie_adapters.config.types import InFile, Numbers, Option


class DemoSettings(DeviceSettings):
    """What `selfie demo` takes."""

    quick: bool = False
    """Fewer concepts and steps: shows the steps, proves nothing."""
    train: bool = False
    """Make the shipped adapter again instead, from its vectors on: an hour or more. Stopped and run
    again, it resumes."""


class ReportSettings(Settings):
    """What `selfie report` takes."""

    runs: Annotated[tuple[Path, ...], Option(positional=True)] = ()
    """Folders of runs (--out of selfie label and selfie eval; of selfie train, its run folder)."""


class ConfigsSettings(Settings):
    """What `selfie configs` takes."""

    name: Annotated[str | None, Option(positional=True)] = None
    """The one to print, such as smollm2_topics."""


class DoctorSettings(ModelSettings):
    """What `selfie doctor` takes."""

    model: Annotated[InFile, Option(default="demo, if it is installed")] = "demo"
    sae: InFile | None = None
    """SAE of the model, whose activations are checked as well: release:id, a SAELens folder, or
    demo."""


class PublishedSettings(DeviceSettings):
    """What `selfie eval published` takes."""

    files: Annotated[tuple[str, ...], Option(positional=True)] = ()
    """Result files of generation scoring (merged, or shards, which are merged), labels files with
    or without metadata, retrieval summaries and per-label files."""
    split_60: bool = False
    """Take a label's first 60 conversations as six labels of ten (label_dataset files)."""
    topics: Annotated[InFile | None, Option(default="the data set that the labels file names")] = (
        None
    )
    """What labels are looked up in: concepts, a topics file, or a data set on the hub."""
    metadata: InFile | None = None
    """List whose entry i states which topic latent i is about, for labels files without topics."""
    index: str = "title_plus_all_labels"
    """What of a topic is embedded: title_only, title_plus_first_label, title_plus_all_labels,
    mean_of_all."""
    embedder: str = "thenlper/gte-large"
    """Any sentence-transformers model: hub id or folder; minilm comes from a package."""
    scales: Annotated[list[float] | None, Numbers] = None
    """Look up labels of these scales only."""


class DataFileSettings(Settings):
    """What `selfie data inspect` and `selfie data check` take."""

    file: Annotated[str, Option(positional=True)]
    """Training file (.json or .json.gz)."""


class FetchSettings(Settings):
    """What `selfie data fetch` takes."""

    name: Annotated[str, Option(positional=True)]
    """goodfire-8b-labels or vital-articles."""


class MergeSettings(Settings):
    """What `selfie data merge` takes."""

    files: Annotated[tuple[Path, ...], Option(positional=True)] = ()
    """Training files, two or more."""


class SplitFileSettings(SplitSettings):
    """What `selfie data split` takes."""

    file: Annotated[Path, Option(positional=True)]
    """Training file, or label file in the training format."""


class ConvertSettings(Settings):
    """What `selfie data convert` takes."""

    file: Annotated[Path, Option(positional=True)]
    """Vector file, or training file: then all its vector files, and filename in it."""


class SaeSearch(Settings):
    """What `selfie prepare list` takes."""

    words: Annotated[tuple[str, ...], Option(positional=True)] = ()
    """All of them must occur in release, id, repository, model or Neuronpedia source."""
    model: str | None = None
    """Part of the model's name."""
    labelled: bool = False
    """Only SAEs with labels on Neuronpedia."""


class AdapterFileSettings(Settings):
    """What `selfie adapter show` takes."""

    file: Annotated[str, Option(positional=True)]
    """An adapter file (.safetensors or .pt), a folder that holds exactly one, or a hub path
    owner/repo/file.safetensors."""


class PushSettings(Settings):
    """What `selfie adapter push` takes."""

    source: Annotated[str, Option(positional=True)]
    """Adapter file, a folder that holds exactly one, or a training run's folder (its best one)."""
    repo: Annotated[str, Option(positional=True)]
    """Repository on the hub, owner/name."""
    upload: bool = False
    """Upload; without it the files and the card are only shown."""
    mean: Annotated[InFile | None, Option(default="{adapter}.mean.safetensors", file=True)] = None
    """safetensors file with the mean vectors of the adapter's inputs."""
    confidence: Annotated[InFile | None, Option(default="{adapter}.confidence.json", file=True)] = (
        None
    )
    """Calibration, as selfie confidence fit writes it."""
    evaluation: Annotated[tuple[str, ...], Option(default="those in the adapter's folder")] = ()
    """Folders of selfie eval loss, naming or retrieval whose figures the card shows."""
    private: bool = False
    """Make a repository that does not exist yet private."""


class PullSettings(Settings):
    """What `selfie adapter pull` takes."""

    repo: Annotated[str, Option(positional=True)]
    """Repository on the hub, owner/name, with adapter.safetensors."""


class RunsSettings(Settings):
    """What `selfie runs` takes."""

    folder: Annotated[str, Option(positional=True)] = "runs"
    """Where run folders are (training.checkpoint_dir)."""


class CompareSettings(Settings):
    """What `selfie runs compare` takes."""

    a: Annotated[str, Option(positional=True)]
    """One run folder."""
    b: Annotated[str, Option(positional=True)]
    """The other."""


class ShownPrompt(PromptSettings):
    """What `selfie prompt show` takes."""

    model: InFile
    """Hub id, local folder, .gguf file, or demo; only its tokenizer is loaded."""
