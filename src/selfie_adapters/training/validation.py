"""Validation: the loss on held-out labels, compared with controls that know less than the adapter.

zero       f(0) for every vector: the adapter's bias alone, which has not seen the vector
shuffled   every example gets another vector of the split, through the adapter
identity   the vector itself as soft token: no adapter
The controls are measured on a fixed part of the examples, so that they stay cheap.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from selfie_adapters.adapters import Adapter, create_adapter, find_adapter_file, load_adapter
from selfie_adapters.config import TrainConfig
from selfie_adapters.dataset import VectorLabelDataset
from selfie_adapters.dataset.controls import shuffle_order
from selfie_adapters.errors import ConfigError, DataError
from selfie_adapters.model import FrozenModel
from selfie_adapters.training.epochs import epoch_of
from selfie_adapters.training.ranks import Ranks, joined_ranks
from selfie_adapters.training.run_folder import RunFolder
from selfie_adapters.training.setup import Setup, set_up

CONTROL_EXAMPLES = 512
_PART = 1024  # examples between two looks at whether to stop


class ValidationInterrupted(Exception):
    """A validation was given up because training is asked to stop."""


@dataclass(frozen=True)
class Validation:
    """Mean losses in nats per token. `controls` are over the first `control_examples`."""

    loss: float
    examples: int
    controls: dict[str, float]
    control_examples: int

    @property
    def bias_share(self) -> float | None:
        """Share of the improvement over the identity that the bias alone explains.

        (identity - zero) / (identity - trained); None if the trained adapter is no better than
        the identity, or is the identity.
        """
        better_by = self.controls["identity"] - self.controls["trained"]
        if better_by <= 0:
            return None
        return (self.controls["identity"] - self.controls["zero"]) / better_by

    def row(self) -> dict[str, Any]:
        """Its columns in metrics.jsonl."""
        share = self.bias_share
        return {
            "val_loss": self.loss,
            "examples": self.examples,
            "controls": self.controls,
            "control_examples": self.control_examples,
            "bias_share": None if share is None else round(share, 4),
        }

    def line(self) -> str:
        controls = ", ".join(f"{k} {v:.3f}" for k, v in self.controls.items() if k != "trained")
        share = self.bias_share
        explained = "" if share is None else f"; the bias alone explains {share:.0%} of the gain"
        if share is not None and share > 1:
            explained = "; the bias alone does better than the adapter"
        return f"validation loss {self.loss:.4f} ({controls}{explained})"


class Validator:
    """Measures adapters on the same held-out examples each time."""

    def __init__(self, setup: Setup, ranks: Ranks) -> None:
        config, split = setup.config, setup.val
        self._objective, self._split, self._ranks = setup.unsmoothed, split, ranks
        self._normalize = config.projection.normalize_input
        generator = torch.Generator().manual_seed(config.seed)
        groups = split.groups(config.data.val_dataset_ratios) if len(split) else []
        pool = epoch_of(groups, generator) if groups else torch.arange(len(split))
        count = max(1, round(pool.numel() * config.training.val_fraction))
        drawn = torch.randperm(pool.numel(), generator=generator)
        self.chosen = pool[drawn[:count]].sort().values
        self._controlled = pool[drawn[: min(count, CONTROL_EXAMPLES)]].sort().values
        self._identity_loss: float | None = None

    def __len__(self) -> int:
        """Examples of one validation."""
        return self.chosen.numel()

    def measure(
        self, adapter: Adapter, stop: Callable[[], bool] = lambda: False
    ) -> Validation | None:
        """The losses of `adapter`; None if nothing is held out.

        stop is asked now and then; once it says yes, ValidationInterrupted is raised.
        """
        if not len(self):
            return None
        vectors = self._split.vectors
        controlled = self._controlled
        rest = self.chosen[~torch.isin(self.chosen, controlled)]
        others = self._other_vectors(controlled)

        def soft_tokens(rows: Tensor) -> Tensor:
            return adapter(vectors(rows))

        trained = self._mean_loss(soft_tokens, controlled, stop)
        loss = trained
        if rest.numel():
            of_rest = self._mean_loss(soft_tokens, rest, stop)
            loss = (trained * controlled.numel() + of_rest * rest.numel()) / len(self)
        zeros = torch.zeros(1, adapter.dim)
        controls = {
            "trained": trained,
            "zero": self._mean_loss(
                lambda rows: adapter(zeros.expand(rows.numel(), -1)), controlled, stop
            ),
        }
        if others is not None:
            controls["shuffled"] = self._mean_loss(
                lambda rows: adapter(vectors(others[torch.searchsorted(controlled, rows)])),
                controlled,
                stop,
            )
        controls["identity"] = self._identity(adapter.dim, stop)
        return Validation(loss, len(self), controls, controlled.numel())

    def _identity(self, dim: int, stop: Callable[[], bool]) -> float:
        """The identity's loss; it never changes, so it is measured once."""
        if self._identity_loss is None:
            identity = create_adapter("identity", dim, normalize_input=self._normalize)
            self._identity_loss = self._mean_loss(
                lambda rows: identity(self._split.vectors(rows)), self._controlled, stop
            )
        return self._identity_loss

    def _other_vectors(self, controlled: Tensor) -> Tensor | None:
        """For each example one with another vector; None if there is but one vector.

        Vectors are permuted, not examples: the labels of one vector would often meet it again.
        """
        examples = self._split.examples
        places = torch.stack([examples.section[controlled], examples.row[controlled]], dim=1)
        vectors, which = places.unique(dim=0, return_inverse=True)
        if len(vectors) < 2:
            return None
        first = torch.full((len(vectors),), len(controlled))
        first.scatter_reduce_(0, which, torch.arange(len(controlled)), "amin")
        return controlled[first[shuffle_order(len(vectors))[which]]]

    @torch.no_grad()
    def _mean_loss(
        self, soft_tokens: Callable[[Tensor], Tensor], chosen: Tensor, stop: Callable[[], bool]
    ) -> float:
        """Mean loss of the examples `chosen`, each process working on its share."""
        total = torch.zeros(1, dtype=torch.float64)
        for rows in self._ranks.share(chosen).split(_PART):
            if self._ranks.size == 1 and stop():
                raise ValidationInterrupted
            if rows.numel():
                # Every condition gives the labels of one vector the same soft token.
                same = self._split.vector_of[rows]
                soft = soft_tokens(rows)
                losses = self._objective.all_losses(soft, self._split.tokens, rows, same)
                total += losses.per_example.double().sum().cpu()
        self._ranks.add_up([total])
        return float(total) / chosen.numel()


def check_validation_cost(setup: Setup, validator: Validator) -> None:
    """Raise ConfigError where the validations on the way would cost over half of training.

    Through a frozen model an example costs one pass forward and one back in training, and one
    forward in validation. The one at the end is not counted, nor are the controls.
    """
    order, settings = setup.order, setup.config.training
    times = order.total_steps // settings.validation_every_n_steps
    share = times * len(validator) / (2 * order.total_examples)
    if share <= 0.5:
        return
    affordable = order.total_examples // len(validator)
    seldom = order.total_steps // (affordable + 1) + 1
    fewer = order.total_examples // times  # examples of each validation that would be affordable
    fraction = _round_down(settings.val_fraction * fewer / len(validator))
    or_fewer = f" or training.val_fraction: {fraction}" if fewer else ""
    raise ConfigError(
        f"training.validation_every_n_steps: {settings.validation_every_n_steps} means {times} "
        f"validations of {len(validator)} examples in {order.total_steps} steps, {share:.0%} of "
        f"the cost of training ({order.total_examples} examples); at most half is sensible. Set "
        f"training.validation_every_n_steps: {seldom}{or_fewer}."
    )


def _round_down(fraction: float) -> float:
    """Two significant digits, never above `fraction`."""
    digits = 2
    while fraction * 10**digits < 10 and digits < 9:
        digits += 1
    return int(fraction * 10**digits) / 10**digits


def measure(
    config: TrainConfig,
    adapter_file: str | Path | None = None,
    model: FrozenModel | None = None,
    dataset: VectorLabelDataset | None = None,
) -> tuple[Validation, str]:
    """Losses of an adapter and its controls on the configured validation set; writes nothing.

    adapter_file None takes the configured training.resume_from_checkpoint, or else the adapter at
    its initial values. Returns the losses and which adapter they are of. Raises like `train`;
    BindingError if the adapter was trained with another model or prompt.
    """
    source = adapter_file or config.training.resume_from_checkpoint
    with joined_ranks(config.model.device_map) as ranks:
        setup = set_up(config, model, dataset, ranks, training=False)
        adapter, what = setup.adapter, "the adapter at its initial values"
        if source is not None:
            file = find_adapter_file(source)
            adapter, what = load_adapter(file, setup.model.device), str(file)
            if adapter.binding is not None and setup.adapter.binding is not None:
                adapter.binding.check(setup.adapter.binding)
        found = Validator(setup, ranks).measure(adapter)
    if found is None:
        raise DataError(f'{config.data.labels_file}: no vector has the split "val".')
    return found, what


def measure_run(
    folder: str | Path, model: FrozenModel | None = None, dataset: VectorLabelDataset | None = None
) -> tuple[Validation, str]:
    """`measure` for a run's best adapter (without one: its final, then its last)."""
    run = RunFolder(Path(folder))
    config = run.config()
    files = [run.adapter(which) for which in ("best", "final", "last")]
    file = next((file for file in files if file.exists()), None)
    return measure(config, file, model, dataset)
