"""What decides a training file, and what the commands of `selfie prepare` take: states of topics,
differences of models, SAEs and their labels, and data sets that a chat model writes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from selfie_adapters.config.lists import numbers_of
from selfie_adapters.config.settings import Settings
from selfie_adapters.config.shared import (
    ChatSettings,
    DeviceSettings,
    LoraSettings,
    ModelSettings,
    SplitSettings,
)
from selfie_adapters.config.types import (
    Chat,
    Count,
    InFile,
    NotNegative,
    Numbers,
    Option,
    Seed,
    Share,
)
from selfie_adapters.errors import DataError, nearest

QUESTION = "Tell me about {}."
NO_CONCEPT = "nothing"
NULL_SHARE = 0.15
Position = int | Literal["name"]


def read_positions(value: Any) -> Any:
    """Positions as a user writes them: "-1", "0,5", "-4:" (to the end, also -4:0), "-1,name".

    What is no text is returned as it is. Raises DataError for other text.
    """
    if not isinstance(value, str):
        return value
    found: list[Position] = []
    for part in (part.strip() for part in value.split(",")):
        try:
            numbers: list[Any] = ["name"] if part == "name" else [*numbers_of(_closed(part))]
        except ValueError:
            numbers = []
        if not numbers or not all(isinstance(one, int) or one == "name" for one in numbers):
            raise DataError(
                f'positions: "{part}" is not a number, an ascending range (-4: or 0:5), or '
                f'"name". {nearest(part, ["name"])}'.rstrip()
            )
        if "name" not in numbers and numbers[0] < 0 <= numbers[-1]:
            raise DataError(
                f'positions: "{part}" mixes those from the end and from the beginning; write -4: '
                "or 2:5."
            )
        found += numbers
    return tuple(found)


def _closed(part: str) -> str:
    """A range with both ends: "-4:" reaches to the end, which is -4:0, and ":5" is 0:5."""
    if part.startswith("-") and part.endswith(":"):
        return f"{part}0"
    return f"0{part}" if part.startswith(":") else part


class TopicSettings(SplitSettings):
    """Which states are a topic's vectors: outputs of blocks `layers` at each of `positions`."""

    layers: Annotated[tuple[int, ...], Numbers]
    """Blocks whose output is taken, zero-based; one section of the file each."""
    question: str = QUESTION
    """What a name is put into."""
    messages: InFile | None = None
    """JSON file with a conversation that a name is put into in place of the question: a list of
    messages with role and content, one of them with {}."""
    chat: Chat = "template"
    """The tokenizer's own chat template, a bare turn without system prompt, or none."""
    positions: Annotated[
        tuple[Position, ...],
        BeforeValidator(read_positions),
        Option(names=("positions", "position"), hyphen=True),
    ] = (-1,)
    """Tokens whose states are taken: numbers and ranges such as -1, 0:5 or -4:, counted from the
    end when negative, and name, the last token of the topic's name in the sentences of --frames;
    several as in -1,name."""
    frames: Annotated[InFile | None, Option(default="60 sentences of the package")] = None
    """File of sentences with {} for the name, one per line; every fifth is kept for held-out
    topics."""
    frames_per_topic: int = 2
    """Sentences each name is put into."""
    names_only: bool = False
    """Label training vectors with their topic's name alone: short labels, learned faster. Held-out
    ones keep all labels."""
    no_concept: Annotated[float | None, Option(default="0.15 with the position name, else 0")] = (
        None
    )
    """Vectors without a concept that are added, as a share of the topics': states of function
    words, punctuation and chat tokens, random directions. Their label is "nothing"."""

    @property
    def null_share(self) -> float:
        """Vectors without a concept, as a share of the topics' vectors."""
        if self.no_concept is None:
            return NULL_SHARE if "name" in self.positions else 0.0
        return self.no_concept

    def check(self) -> None:
        """Raise DataError for positions or layers that occur twice, for nulls without names, and
        for a conversation in another format than the chat template."""
        if self.messages is not None and self.chat != "template":
            raise DataError(
                f"messages need the chat template; chat is {self.chat!r}, a format for a "
                "single text. Omit one of them."
            )
        for what, values in (("layers", self.layers), ("positions", self.positions)):
            if not values or len(set(values)) != len(values):
                raise DataError(f"{what} {list(values)}: give each once, and at least one.")
        if not 0 <= self.null_share <= 1:
            raise DataError(
                f"no_concept is {self.no_concept}; a share from 0 to 1 of the topics' vectors is "
                "expected."
            )
        if self.frames_per_topic < 1:
            raise DataError(f"frames_per_topic is {self.frames_per_topic}; give 1 or more.")
        if self.null_share and "name" not in self.positions:
            raise DataError(
                "tokens without a concept are taken from the sentences around names: give "
                'positions "name" too (--positions -1,name), or no_concept 0.'
            )


class TopicOptions(TopicSettings, ModelSettings, LoraSettings):
    """What `selfie prepare topics` takes."""

    source: Annotated[InFile, Option(positional=True)]
    """JSONL or CSV with name or prompt, and labels; the word concepts for the project's own 8,000
    nouns, or more-concepts for 12,000 to train on; or a data set on the hub (owner/name)."""


class DifferenceSettings(ModelSettings, LoraSettings):
    """What `selfie prepare difference` takes: states of a model minus those of another one, at the
    same tokens of the same prompts."""

    prompts: Annotated[InFile, Option(positional=True)]
    """File with one prompt per line."""
    model: InFile
    """The model whose states count positive: hub id, folder, .gguf file, a LoRA's folder, demo."""
    minus: Annotated[InFile | None, Option(default="with --lora the model without it")] = None
    """The model whose states are subtracted."""
    layers: Annotated[tuple[int, ...], Numbers, Field(min_length=1)]
    """Blocks whose output is taken, zero-based; one section of the file each."""
    positions: Annotated[
        tuple[int, ...],
        BeforeValidator(read_positions),
        Field(min_length=1),
        Option(names=("positions", "position"), hyphen=True),
    ] = (-1,)
    """Tokens whose states are taken: numbers and ranges such as -1, 0:5 or -4:, counted from the
    end when negative; one section of the file each."""
    chat: Chat = "template"
    """The tokenizer's own chat template, a bare turn without system prompt, or none."""

    @model_validator(mode="after")
    def _two_models(self) -> DifferenceSettings:
        if self.minus is None and self.lora is None:
            raise ValueError("give the model to subtract (--minus MODEL), or a LoRA (--lora PATH)")
        for what, values in (("layers", self.layers), ("positions", self.positions)):
            if len(set(values)) != len(values):
                raise ValueError(f"{what} {list(values)}: give each once")
        return self


class SaeSearch(Settings):
    """What `selfie prepare list` takes."""

    words: Annotated[tuple[str, ...], Option(positional=True)] = ()
    """All of them must occur in release, id, repository, model or Neuronpedia source."""
    model: str | None = None
    """Part of the model's name."""
    labelled: bool = False
    """Only SAEs with labels on Neuronpedia."""


class LabelSourceSettings(Settings):
    """Where labels are fetched from, and which of them are kept."""

    labels_url: str | None = None
    """Copy of Neuronpedia's export bucket: a folder, or an address that answers S3's listing."""
    explainer: Annotated[str | None, Option(default="the one that labels the most latents")] = None
    """Keep the labels of this model, or model/type."""
    all_explainers: bool = False
    """Keep the labels of all of them."""


class SaeSettings(LabelSourceSettings, SplitSettings):
    """What `selfie prepare sae` takes: which SAE, which labels, and how to split them."""

    output_name: str
    """Name of both files: {output-name}.pt and {output-name}_labels.json."""
    output_dir: Path = Path("data")
    """Folder to write them to."""
    release: str | None = None
    """Release in SAELens' registry, or its hub repository; see selfie prepare list."""
    sae_id: str | None = None
    """SAE of the release."""
    sae_path: Path | None = None
    """SAE on disk: a folder, or a file with a decoder. With --release: its weights' file."""
    layer: int | None = None
    """Block whose output the vectors are directions of, zero-based; where nothing else states
    it."""
    neuronpedia_id: str | None = None
    """Source of the labels, model/source, where the registry does not know it."""
    labels_json: Path | None = None
    """Labels from a file: {"12": "label", …}, the training format, or JSON lines with index and
    description; .gz too."""
    labels_jsonl: Path | None = None
    """The same; a file whose content leaves it open is read as JSON lines."""
    one_label: bool = False
    """Keep a latent's first label only."""
    force_new_split: bool = False
    """Split again even if the label file has splits."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Dtype of the vectors; bfloat16 and float16 halve the file."""
    device: str = "cpu"
    """Where SAELens loads what it alone can read; all else is copying and needs no GPU."""


class LabelFileSettings(LabelSourceSettings):
    """What `selfie prepare labels` takes: which labels of a Neuronpedia source are written."""

    source: Annotated[str, Option(positional=True)]
    """model/source, such as llama3.1-8b/19-llamascope-res-32k."""


class WriterSettings(ChatSettings):
    """A chat model and what it costs."""

    input_price: NotNegative | None = None
    """Price of a million tokens that are sent; null leaves the costs in tokens."""
    output_price: NotNegative | None = None
    """Price of a million tokens that are received."""

    @model_validator(mode="after")
    def _both_prices(self) -> WriterSettings:
        if (self.input_price is None) != (self.output_price is None):
            raise ValueError("give both input_price and output_price, or neither")
        return self


class TopicWritingSettings(DeviceSettings):
    """What `selfie prepare dataset` takes: everything that decides what is written from titles."""

    titles: InFile
    """JSON ({"titles": […]} or a list), JSONL, or one title a line; .gz too."""
    limit: Count | None = None
    """Take N titles, drawn at random; null takes all."""
    earlier: tuple[InFile, ...] = ()
    """candidates.jsonl of earlier runs, merged with this one's."""
    writer: WriterSettings
    judge: WriterSettings | None = None
    """Who chooses prompts and rates labels; default: the writer."""
    judged: bool = True
    """false keeps everything: the first prompt, all labels."""
    prompts: Count = 3
    """Prompts of every title, of which one is chosen."""
    labels: Count = 8
    """Labels of every title and run."""
    runs: Count = 1
    """How many times every title is asked about."""
    temperature: NotNegative = 0.8
    """Sampling temperature; 0 is greedy."""
    max_tokens: Count = 800
    """Longest answer, in tokens."""
    least_mark: Share = 0.6
    """Labels with a lower rating are dropped."""
    least_labels: Count = 3
    """Topics with fewer remaining labels are dropped."""
    val_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of the topics that is held out."""
    seed: Seed = 42
    """Seed of the titles that are taken, of the answers, and of the split."""
