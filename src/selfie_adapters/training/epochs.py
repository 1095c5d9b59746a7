"""Which examples each optimizer step takes: a pure function of data, configuration and seed.

Nothing here remembers where training is, so a resumed run only has to know its step. An epoch of a
mixture takes examples of several groups of datasets in given proportions.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from selfie_adapters.config import Ratio, TrainConfig
from selfie_adapters.dataset import Examples, VectorLabelDataset
from selfie_adapters.errors import DataError, nearest
from selfie_adapters.inference.label_batches import LabelTokens, tokenize_labels

_EPOCH_SEEDS = 1_000_003  # seeds of two runs' epochs do not meet


@dataclass(frozen=True)
class SplitExamples:
    """One split, ready to train on: examples in file order, their vectors and labels' tokens."""

    dataset: VectorLabelDataset
    examples: Examples
    tokens: LabelTokens

    def __len__(self) -> int:
        return len(self.examples)

    @cached_property
    def vector_of(self) -> Tensor:
        """[examples], a number for the vector of each: equal where labels share a vector."""
        pairs = torch.stack([self.examples.section, self.examples.row], dim=1)
        return torch.unique(pairs, dim=0, return_inverse=True)[1]

    def vectors(self, chosen: Tensor) -> Tensor:
        """Raw vectors of the examples `chosen`: [rows, d_model], float32."""
        return self.dataset.gather(self.examples.section[chosen], self.examples.row[chosen])

    def groups(self, ratios: list[Ratio] | None) -> list[Group]:
        """The examples of each entry of a mixture; empty without one."""
        if not ratios:
            return []
        wanted = [
            ([r.datasets] if isinstance(r.datasets, str) else r.datasets, r.ratio) for r in ratios
        ]
        return make_groups(self.dataset_ids, self.examples.section, wanted)

    @property
    def dataset_ids(self) -> list[str]:
        return [section.id for section in self.dataset.sections]

    def describe(self, example: int) -> dict[str, str | int]:
        """What names one example to a reader: dataset, row of its vector file, label."""
        return {
            "dataset": self.dataset_ids[int(self.examples.section[example])],
            "index": int(self.examples.row[example]),
            "label": self.examples.labels[example],
        }

    def digest(self) -> str:
        """Hash of which vector says what: distinguishes one training file from another."""
        parts = (self.examples.section, self.examples.row, self.tokens.lengths, self.tokens.ids)
        seen = hashlib.sha256()
        for part in parts:
            seen.update(part.contiguous().numpy().tobytes())
        return seen.hexdigest()[:16]


def read_split(
    dataset: VectorLabelDataset,
    which: Literal["train", "val"],
    tokenizer: PreTrainedTokenizerBase,
    end_id: int,
    strip_labels: bool,
) -> SplitExamples:
    """The examples of a split with their labels tokenized."""
    examples = dataset.examples(which)
    labels = [label.strip() for label in examples.labels] if strip_labels else examples.labels
    return SplitExamples(dataset, examples, tokenize_labels(tokenizer, labels, end_id))


@dataclass(frozen=True)
class StepExamples:
    """What one optimizer step takes: the batches whose gradients it adds up."""

    epoch: int
    batches: list[Tensor]

    @property
    def rows(self) -> Tensor:
        return torch.cat(self.batches)


class TrainingOrder:
    """Epochs of shuffled (or mixed) examples, cut into batches, cut into optimizer steps.

    An epoch's last batch may be short, and so may its last group of accumulated batches.
    """

    def __init__(self, split: SplitExamples, config: TrainConfig) -> None:
        self._split, self._config = split, config
        self._groups = split.groups(config.data.train_dataset_ratios)
        settings = config.training
        self.epoch_examples = self.epoch(0).numel()  # every epoch has as many
        batches = math.ceil(self.epoch_examples / config.data.batch_size)
        self.epoch_steps = math.ceil(batches / settings.gradient_accumulation_steps)
        self.total_steps = settings.num_epochs * self.epoch_steps
        if settings.max_steps is not None:
            self.total_steps = min(self.total_steps, settings.max_steps)

    @property
    def total_examples(self) -> int:
        """Examples that the whole run trains on, repetitions counted."""
        whole, rest = divmod(self.total_steps, self.epoch_steps)
        a_step = self._config.data.batch_size * self._config.training.gradient_accumulation_steps
        return whole * self.epoch_examples + min(rest * a_step, self.epoch_examples)

    def epoch(self, number: int) -> Tensor:
        """Examples of one epoch in the order they are trained on; the same for the same seed."""
        data, seed = self._config.data, self._config.seed
        generator = torch.Generator().manual_seed(seed * _EPOCH_SEEDS + number)
        order = torch.arange(len(self._split))
        if self._groups:
            drawn = generator
            if not data.resample_each_epoch:
                drawn = torch.Generator().manual_seed(seed * _EPOCH_SEEDS)
            order = epoch_of(self._groups, drawn)
        if data.shuffle:
            if data.keep_labels_together:
                shuffled = shuffled_vectors(self._split.vector_of[order], generator)
            else:
                shuffled = torch.randperm(order.numel(), generator=generator)
            order = order[shuffled]
        return order

    def members(self) -> Tensor:
        """Every example that some epoch may take, in rising order."""
        if not self._groups:
            return torch.arange(len(self._split))
        return torch.unique(torch.cat([group.members for group in self._groups]))

    def counts(self, epoch: int) -> dict[str, int]:
        """Examples that each dataset gives to an epoch."""
        ids = self._split.dataset_ids
        sections = self._split.examples.section[self.epoch(epoch)]
        counts = torch.bincount(sections, minlength=len(ids)).tolist()
        return dict(zip(ids, counts, strict=True))

    def steps(self, done: int = 0) -> Iterator[StepExamples]:
        """What each optimizer step takes, after the first `done` steps."""
        accumulate = self._config.training.gradient_accumulation_steps
        batches: tuple[Tensor, ...] = ()
        of_epoch = -1
        for step in range(done, self.total_steps):
            epoch, place = divmod(step, self.epoch_steps)
            if epoch != of_epoch:
                batches = self.epoch(epoch).split(self._config.data.batch_size)
                of_epoch = epoch
            start = place * accumulate
            yield StepExamples(epoch, list(batches[start : start + accumulate]))


def shuffled_vectors(vector_of: Tensor, generator: torch.Generator) -> Tensor:
    """Positions 0…n-1, vector after vector in random order, each one's labels together.

    vector_of: [n], equal numbers for labels of one vector.
    """
    _, vector = torch.unique(vector_of, return_inverse=True)
    rank = torch.randperm(int(vector.max()) + 1, generator=generator)
    return torch.argsort(rank[vector], stable=True)


@dataclass(frozen=True)
class Group:
    """Examples of one entry of a mixture: positions in the split, and the entry's ratio."""

    members: Tensor
    ratio: float


def matching(pattern: str, ids: Sequence[str]) -> list[str]:
    """The dataset ids ("name@l{layer}") that `pattern` means: one of them, or a name's all layers.

    Raises DataError with the nearest ones if there is none.
    """
    found = [one for one in ids if pattern in (one, one.rpartition("@l")[0])]
    if not found:
        names = [one.rpartition("@l")[0] for one in ids]
        raise DataError(
            f'dataset pattern "{pattern}" matches nothing. '
            f"{nearest(pattern, dict.fromkeys([*ids, *names]))}"
        )
    return found


def make_groups(
    ids: Sequence[str], section: Tensor, ratios: Sequence[tuple[Sequence[str], float]]
) -> list[Group]:
    """Groups of examples: ids[k] is the dataset of the examples with section == k.

    ratios: (patterns, ratio) of each group. Raises DataError for a pattern that matches nothing
    and for a group without examples.
    """
    groups = []
    for patterns, ratio in ratios:
        wanted = {one for pattern in patterns for one in matching(pattern, ids)}
        numbers = torch.tensor([k for k, one in enumerate(ids) if one in wanted])
        members = torch.isin(section, numbers).nonzero().flatten()
        if not members.numel():
            raise DataError(
                f"the group {', '.join(patterns)} has no examples in this split. Remove it "
                "from the ratios, or add examples."
            )
        groups.append(Group(members, ratio))
    return groups


def epoch_of(groups: Sequence[Group], generator: torch.Generator) -> Tensor:
    """Examples of one epoch, group by group, each group's in rising order.

    The group smallest for its ratio is taken whole; of every other, as many as its ratio requests
    (rounded), sampled again from `generator`.
    """
    unit = min(group.members.numel() / group.ratio for group in groups)
    taken = []
    for group in groups:
        count = min(group.members.numel(), round(unit * group.ratio))
        order = torch.randperm(group.members.numel(), generator=generator)[:count]
        taken.append(group.members[order.sort().values])
    return torch.cat(taken)
