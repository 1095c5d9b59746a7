"""What `selfie demo` runs with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from selfie_adapters.config.types import Chat

SENTENCE = "The capital of France is Paris, but the Eiffel Tower was built by an engineer."
READ_AT = (12, 20)
"""Blocks at which the sentence is read."""


@dataclass(frozen=True)
class CapturePoint:
    """Where vectors are taken: output of block `layer` (zero-based) at a kind of position, the last
    token of the prompt (-1) or the concept's own last token in a sentence ("name")."""

    layer: int
    position: Literal[-1, "name"]


OWN_TOKEN, LAST_TOKEN = CapturePoint(12, "name"), CapturePoint(24, -1)
CHAT: Chat = "bare"
"""The chat format that the shipped adapter's vectors were captured in."""

# The adapter that is trained here, on vectors of LAST_TOKEN. Chosen by measurement:
# docs/reproduce.md states what was tried.
LAYER = LAST_TOKEN.layer
TEMPLATE = (
    "<|im_start|>user\nWhat is the meaning of the word in quotes?<|im_end|>\n"
    '<|im_start|>assistant\nThe meaning of "<reponame>" is "'
)
PLACEHOLDER = "<reponame>"
LEARNING_RATE = 0.03
BATCH = 64


@dataclass(frozen=True)
class Size:
    """How much of everything: the full demo, or a quick pass that shows the steps alone.

    test: concepts that every condition labels. pairs: how many of them are printed. probe: training
    concepts that the ridge probe is fitted on. train, val, steps: concepts and optimizer steps of
    the adapter that is trained here.
    """

    test: int
    pairs: int
    probe: int
    train: int
    val: int
    steps: int


FULL = Size(test=150, pairs=30, probe=400, train=1500, val=100, steps=30)
QUICK = Size(test=24, pairs=10, probe=80, train=160, val=16, steps=4)
