"""Options of the commands that have few: one class per command, in the order of the table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from selfie_adapters.config.settings import Settings
from selfie_adapters.config.shared import (
    DEVICE_DEFAULT,
    BindingSettings,
    DeviceSettings,
    DisplaySettings,
    LoraSettings,
    ModelSettings,
    PromptSettings,
    SplitSettings,
)
from selfie_adapters.config.types import InFile, Numbers, Option

ExportFormat = Literal[
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


class DemoSettings(DeviceSettings):
    """What `selfie demo` takes."""

    quick: bool = False
    """Fewer concepts and steps: shows the steps, proves nothing."""
    train: bool = False
    """Make the shipped adapter again instead, from its vectors on: an hour or more. Stopped and run
    again, it resumes."""


class ServeSettings(ModelSettings, LoraSettings, BindingSettings, DisplaySettings):
    """What `selfie serve` takes."""

    model: InFile = "demo"
    adapter: Annotated[tuple[InFile, ...], Option(default="demo, for the model demo")] = ()
    """Adapter file; give it twice to compare two."""
    mean: Annotated[
        InFile | None, Option(default="the file in the first adapter's folder, if any")
    ] = None
    """File of mean vectors (layer_12, or layer_12_at_-1 and layer_12_at_name), subtracted from a
    prompt's states."""
    host: str = "127.0.0.1"
    """Address to listen on; from any but this machine's own, a token is asked for."""
    port: int = 8321
    """Port; 0 takes a free one."""
    token: Annotated[
        str | None, Option(default="$SELFIE_TOKEN, else none on 127.0.0.1, elsewhere a new one")
    ] = None
    """What a client must know. Other users of this machine can see an option, but not a variable
    or a file."""
    token_file: str | None = None
    """File with the token, instead of the token itself."""


class ReportSettings(Settings):
    """What `selfie report` takes."""

    runs: Annotated[tuple[Path, ...], Option(positional=True)] = ()
    """Folders of runs (--out of selfie label and selfie eval; of selfie train, its run folder)."""


class ExportSettings(Settings):
    """What `selfie export` takes."""

    run: Annotated[InFile, Option(positional=True)]
    """Folder that selfie label wrote."""
    format: ExportFormat
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
