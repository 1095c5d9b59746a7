"""Loss of every held-out label under an adapter and its controls, example by example."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from selfie_adapters.adapters import Adapter, create_adapter
from selfie_adapters.dataset import LabelledVector, VectorLabelDataset
from selfie_adapters.dataset.controls import random_vectors, shuffle_order
from selfie_adapters.dataset.schema import Split
from selfie_adapters.errors import AdapterError
from selfie_adapters.evaluation.retrieval.targets import key_of, sample
from selfie_adapters.inference.label_batches import checked_labels
from selfie_adapters.model import BoundPrompt, FrozenModel, SoftPrompt, bind
from selfie_adapters.training import Objective

Condition = Literal["trained", "zero", "shuffled", "random", "identity", "untrained"]
CONDITIONS: tuple[Condition, ...] = (
    "trained",
    "zero",
    "shuffled",
    "random",
    "identity",
    "untrained",
)


@dataclass(frozen=True)
class HeldOut:
    """Vectors of one training file with their labels. seed: of shuffling and random directions."""

    dataset: VectorLabelDataset
    items: Sequence[LabelledVector]
    strip_labels: bool
    seed: int

    @classmethod
    def of(
        cls,
        dataset: VectorLabelDataset,
        split: Split,
        limit: int | None,
        strip_labels: bool,
        seed: int,
    ) -> HeldOut:
        """`limit` of the split's vectors, drawn at random, with all their labels."""
        items = sample(dataset.labelled(split), limit, seed)
        return cls(dataset, items, strip_labels, seed)

    def __len__(self) -> int:
        """Vectors."""
        return len(self.items)

    @cached_property
    def vectors(self) -> Tensor:
        """[vectors, d_model], raw, float32."""
        places = [(item.section, item.row) for item in self.items]
        section, row = torch.tensor(places, dtype=torch.int64).reshape(-1, 2).T
        return self.dataset.gather(section, row)

    @cached_property
    def shuffled(self) -> Tensor:
        """Each vector replaced by another one."""
        return self.vectors[shuffle_order(len(self), self.seed)]

    @cached_property
    def random(self) -> Tensor:
        """Gaussian directions with the vectors' norms."""
        return random_vectors(self.vectors, self.seed)

    def labels(self, vector: int) -> list[str]:
        """The labels of a vector as they are scored."""
        given = self.items[vector].labels
        return [label.strip() for label in given] if self.strip_labels else list(given)

    def key(self, vector: int) -> str:
        return key_of(self.dataset, self.items[vector])


class LossMeter:
    """Losses through one model and prompt."""

    def __init__(self, model: FrozenModel, prompt: SoftPrompt, max_loss: float) -> None:
        self.model = model
        self.prompt: BoundPrompt = prompt.bind(model.tokenizer)
        self._objective = Objective(model, self.prompt, max_loss=max_loss)

    def check(self, adapter: Adapter, name: str) -> None:
        """Raise AdapterError or BindingError if `adapter` is not for this model and prompt."""
        if adapter.dim != self.model.d_model:
            raise AdapterError(
                f"{name}: the adapter maps vectors of width {adapter.dim}; the model "
                f"{self.model.name} has d_model {self.model.d_model}. Use the model the adapter "
                "was trained with."
            )
        if adapter.binding is not None:
            adapter.binding.check(bind(self.model, self.prompt, adapter.binding.layer))

    @torch.no_grad()
    def losses(
        self, held_out: HeldOut, which: Sequence[int], adapter: Adapter, condition: Condition
    ) -> list[list[float]]:
        """Losses of the labels of vectors `which`, nats per token: one list per vector.

        adapter: the trained one; it is replaced under "identity", and must be the plain one under
        "untrained".
        """
        rows = torch.tensor(which)
        if condition == "identity":
            adapter = create_adapter(
                "identity", adapter.dim, normalize_input=adapter.normalize_input
            )
        if condition == "zero":
            soft = adapter(torch.zeros(1, adapter.dim)).expand(len(rows), -1)
        else:
            source = {"shuffled": "shuffled", "random": "random"}.get(condition, "vectors")
            soft = adapter(getattr(held_out, source)[rows])
        texts = [held_out.labels(vector) for vector in which]
        owner = torch.repeat_interleave(
            torch.arange(len(which)), torch.tensor([len(labels) for labels in texts])
        )
        flat = [label for labels in texts for label in labels]
        tokens = checked_labels(self.model, self.prompt, flat)
        everyone = torch.arange(len(flat))
        found = self._objective.all_losses(soft[owner.to(soft.device)], tokens, everyone, owner)
        values = iter(found.per_example.cpu().tolist())
        return [[round(next(values), 6) for _ in labels] for labels in texts]
