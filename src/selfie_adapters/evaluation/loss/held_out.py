"""Loss of every held-out label under an adapter and its controls, example by example."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from selfie_adapters.adapters import Adapter
from selfie_adapters.dataset import LabelledVector, VectorLabelDataset
from selfie_adapters.dataset.schema import Split
from selfie_adapters.errors import AdapterError
from selfie_adapters.evaluation.controls import Condition, sample
from selfie_adapters.evaluation.retrieval.targets import gather, key_of
from selfie_adapters.inference.label_batches import checked_labels
from selfie_adapters.model import BoundPrompt, FrozenModel, SoftPrompt, bind
from selfie_adapters.training import Objective


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
        """`limit` of the split's vectors, sampled at random, with all their labels."""
        items = sample(dataset.labelled(split), limit, seed)
        return cls(dataset, items, strip_labels, seed)

    def __len__(self) -> int:
        """Vectors."""
        return len(self.items)

    @cached_property
    def vectors(self) -> Tensor:
        """[vectors, d_model], raw, float32."""
        return gather(self.dataset, self.items)

    def under(self, condition: Condition) -> Tensor:
        """The vectors that go in under a condition: [vectors, d_model]."""
        if condition.reads not in self._under:
            self._under[condition.reads] = condition.vectors(self.vectors, self.seed)
        return self._under[condition.reads]

    @cached_property
    def _under(self) -> dict[str, Tensor]:
        return {}

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
        self, held_out: HeldOut, which: Sequence[int], soft_tokens: Callable[[Tensor], Tensor]
    ) -> list[list[float]]:
        """Losses of the labels of vectors `which`, nats per token: one list per vector.

        soft_tokens: [n] numbers of vectors → [n, d_model].
        """
        soft = soft_tokens(torch.tensor(which)).to(self.model.device)
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
