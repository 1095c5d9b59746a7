"""Gradient checkpointing of a frozen model: blocks keep their input only and run twice."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from torch.utils.checkpoint import checkpoint

from selfie_adapters.model.loading import FrozenModel
from selfie_adapters.model.prompt import BoundPrompt


def recompute_blocks(model: FrozenModel) -> None:
    """From now on each block's activations are computed again in the backward pass.

    Less memory, about a third more time. No cache may be passed in training, because the second
    pass would extend it again: see `WholePrompt`. Outside training nothing changes.
    """
    for block in model.blocks:
        # Not transformers' own switch: it asks for training mode, in which dropout comes to life.
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)


@dataclass(frozen=True)
class WholePrompt(BoundPrompt):
    """A prompt with nothing before it to share, because checkpointed blocks take no cache."""

    @property
    def prefix_ids(self) -> tuple[int, ...]:
        return ()

    @property
    def suffix_ids(self) -> tuple[int, ...]:
        return self.ids

    @classmethod
    def of(cls, prompt: BoundPrompt) -> WholePrompt:
        return cls(prompt.prompt, prompt.ids, prompt.sites, prompt.placeholder_id, prompt.end_id)
