"""Which states of topics become a training file, and what `selfie prepare topics` takes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from selfie_adapters.config.lists import numbers_of
from selfie_adapters.config.shared import LoraSettings, ModelSettings, SplitSettings
from selfie_adapters.config.types import Chat, InFile, Numbers, Option
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
                f'"{part}" is none of the positions: a number, a range that rises (-4: or 0:5), or '
                f'"name". {nearest(part, ["name"])}'.rstrip()
            )
        if "name" not in numbers and numbers[0] < 0 <= numbers[-1]:
            raise DataError(
                f'"{part}" as positions passes from the end to the beginning; write -4: or 2:5.'
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
                f"messages are written by the chat template; chat is {self.chat!r}, a format of "
                "one text. Leave one of them out."
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
    """States of a model minus those of another one, at the same tokens of the same prompts."""

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
