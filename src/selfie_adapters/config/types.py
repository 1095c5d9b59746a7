"""Types that several settings share: numbers with their bounds, choices, lists, options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from selfie_adapters.config.lists import split_numbers

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Nucleus = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[int, Field(ge=1, lt=2**31)]
NotNegativeCount = Annotated[int, Field(ge=0, lt=2**31)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # what numpy's generators take

Numbers = BeforeValidator(split_numbers)
"""Marks a list of numbers that may also be text: 0,5,9 or 4:28:4."""

Split = Literal["train", "val", "test"]
"""What a row is for: training, choosing (validation, early stopping, calibration), reporting."""
SPLITS: tuple[Split, ...] = ("train", "val", "test")
Dtype = Literal["auto", "bfloat16", "float16", "float32"]
Chat = Literal["template", "bare", "none"]
"""A text as a turn of the tokenizer's chat template, a turn without system prompt, or as it is."""


@dataclass(frozen=True)
class Option:
    """How a field is an option of a command, where its name and its type do not state it.

    names: flags in place of --field-name; the first one is the field's, the others still work.
    positional: the value may be given without a flag. hyphen: a value may begin with "-".
    default: text shown in place of the default value. prefix: of the flags of a field that is a
    section ("" for none); its fields' own flags follow it. file: the value is a path or the name of
    something else; as a path in a configuration file it may be relative to that file.
    """

    names: tuple[str, ...] = ()
    positional: bool = False
    hyphen: bool = False
    default: str | None = None
    prefix: str | None = None
    file: bool = False


InFile = Annotated[str, Field(min_length=1), Option(file=True)]
"""A path or a name; as a path in a configuration file it may be relative to that file."""
