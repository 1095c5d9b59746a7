"""What `selfie demo` runs with."""

from __future__ import annotations

from dataclasses import dataclass

# Chosen by measurement: docs/reproduce.md says what was tried and seen.
LAYER = 24
TEMPLATE = (
    "<|im_start|>user\nWhat is the meaning of the word in quotes?<|im_end|>\n"
    '<|im_start|>assistant\nThe meaning of "<reponame>" is "'
)
PLACEHOLDER = "<reponame>"
RANK = 32
LEARNING_RATE = 0.03
CANDIDATES = 60


@dataclass(frozen=True)
class Size:
    """How much of everything: the full demo, or a quick pass that only shows the way."""

    topics: int
    steps: int
    held_out: int
    groups: int


FULL = Size(topics=4000, steps=45, held_out=120, groups=2)
QUICK = Size(topics=800, steps=12, held_out=CANDIDATES, groups=1)
