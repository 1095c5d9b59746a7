"""What every adapter is: a map R^d → R^d with a kind, a width, a training record and a binding."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from selfie_adapters.adapters.binding import Binding
from selfie_adapters.config.training import ADAPTER_KINDS
from selfie_adapters.errors import AdapterError, nearest

FORMAT_VERSION = 1
"""Version of the checkpoint format, as it is stored in `.pt` files."""

NORM_EPSILON = 1e-8
"""Added to the L2 norm before dividing, so that the zero vector stays zero."""


ParameterGroup = Literal["scale", "direction", "bias"]
"""Which learning rate of the configuration a parameter takes: scale_learning_rate (and no weight
decay), direction_learning_rate, or bias_learning_rate."""

KINDS: dict[str, type[Adapter]] = {}
"""Every kind of adapter by its name. A class enters when it is defined."""


@dataclass(frozen=True)
class TrainingRecord:
    """How an adapter was trained: the resolved training config (plain JSON values), the optimizer
    step it was taken at, and the best validation loss (nats per token; None before any validation).
    """

    config: dict[str, Any] = field(default_factory=dict)
    global_step: int = 0
    best_val_loss: float | None = None

    def __post_init__(self) -> None:
        # Trainers start from an infinite best loss; infinity here means no more than None.
        if self.best_val_loss is not None and not math.isfinite(self.best_val_loss):
            object.__setattr__(self, "best_val_loss", None)


def unit_norm(vectors: Tensor) -> Tensor:
    """x / (‖x‖₂ + 1e-8) over the last axis, same shape. The published normalization."""
    return vectors / (vectors.norm(dim=-1, keepdim=True) + NORM_EPSILON)


class Adapter(nn.Module, ABC):
    """A trainable map from vectors `[n, d]` to soft tokens `[n, d]`.

    Parameters are float32 and carry the published names (`log_scale`, `bias`, `U`, `V`, `weight`),
    so that `state_dict()` holds exactly the published tensors. `record` states how it was trained,
    `binding` what it was trained for; both are stored in the file.

    A kind is a subclass that states its name and the group of each of its parameters:

        class Shift(Adapter, kind="shift", groups={"bias": "bias"}): ...

    From then on `create_adapter`, `load_adapter` and `projection.type` of a configuration know it.
    """

    kind: ClassVar[str]
    takes_rank: ClassVar[bool]
    parameter_groups: ClassVar[Mapping[str, ParameterGroup]]
    """Parameter name → group that decides its learning rate and weight decay."""

    device_marker: Tensor

    def __init_subclass__(
        cls,
        kind: str | None = None,
        groups: Mapping[str, ParameterGroup] | None = None,
        takes_rank: bool = False,
    ) -> None:
        """kind None: a class that several kinds share. Raises AdapterError if another class has the
        name, or the configuration knows the kind with another takes_rank."""
        super().__init_subclass__()
        if kind is None:
            return
        cls.kind, cls.parameter_groups, cls.takes_rank = kind, dict(groups or {}), takes_rank
        known = KINDS.get(kind)
        # A cell of a notebook that is run again defines the same class again.
        if known is not None and _full_name(known) != _full_name(cls):
            raise AdapterError(
                f'two classes have the adapter kind "{kind}": {_full_name(known)} and '
                f"{_full_name(cls)}. Give the new class another kind."
            )
        if ADAPTER_KINDS.setdefault(kind, takes_rank) != takes_rank:
            raise AdapterError(
                f'adapter kind "{kind}": takes_rank is {takes_rank} in its class and '
                f"{not takes_rank} in ADAPTER_KINDS of config/training.py. Make them equal."
            )
        KINDS[kind] = cls

    def __init__(
        self,
        dim: int,
        *,
        normalize_input: bool = True,
        init_scale: float = 30.0,
        low_rank_rank: int | None = None,
        low_rank_init_factor: float = 0.01,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.normalize_input = normalize_input
        self.init_scale = init_scale
        self.low_rank_rank = low_rank_rank
        self.low_rank_init_factor = low_rank_init_factor
        self.record = TrainingRecord()
        self.binding: Binding | None = None
        self.file: Path | None = (
            None  # where it was loaded from; means and calibration are next to it
        )
        self.specialists: dict[tuple[int, str], Adapter] = {}  # by layer and kind of position
        # An adapter may have no parameters; this empty buffer still follows `.to(device)`. It is
        # made on the CPU even under torch.device("meta"), and is never saved.
        self.register_buffer("device_marker", torch.empty(0, device="cpu"), persistent=False)
        self._make_parameters()
        self.grouped_parameters()  # a kind with an incomplete declaration fails at once

    def _make_parameters(self) -> None:
        """Allocate the parameters; their values come from `reset_parameters` or a file."""

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Set the published initial values; random ones from `generator` (default: global)."""

    @abstractmethod
    def _map(self, x: Tensor) -> Tensor:
        """The formula, on float32 vectors that are already normalized where they should be."""

    @property
    def device(self) -> torch.device:
        return self.device_marker.device

    def transform(self, vectors: Tensor, normalize_input: bool | None = None) -> Tensor:
        """Soft tokens for `vectors`: `[n, d]` → `[n, d]` or `[d]` → `[d]`, for use.

        The result has the dtype of `vectors` and is on the adapter's device; the computation is
        float32. In evaluation mode (adapters from `load_adapter` are in it) no gradient is
        recorded, so nothing has to be detached; after `.train()` it is differentiable.
        `normalize_input` overrides the adapter's own setting for this call. Raises AdapterError on
        a wrong width, number of axes or dtype.
        """
        with torch.set_grad_enabled(self.training and torch.is_grad_enabled()):
            return self(vectors, normalize_input).to(vectors.dtype)

    def forward(self, vectors: Tensor, normalize_input: bool | None = None) -> Tensor:
        """`transform` for training: float32 whatever the dtype of `vectors`, also under autocast,
        and differentiable in the parameters and the vectors in both modes."""
        if not isinstance(vectors, Tensor):
            raise AdapterError(
                f"vectors must be a tensor, not {type(vectors).__name__}: torch.as_tensor(vectors)."
            )
        shape = list(vectors.shape)
        if len(shape) not in (1, 2):
            raise AdapterError(
                f"vectors must have shape [n, {self.dim}] or [{self.dim}], not {shape}."
            )
        if shape[-1] != self.dim:
            raise AdapterError(
                f"the adapter maps vectors of width {self.dim}; these have width {shape[-1]} "
                f"(shape {shape}). Use the vectors of the model the adapter was trained with."
            )
        if not vectors.is_floating_point():
            raise AdapterError(f"vectors must be floating-point numbers, not {vectors.dtype}.")
        x = vectors.to(device=self.device, dtype=torch.float32)
        with torch.autocast(self.device.type, enabled=False):
            if self.normalize_input if normalize_input is None else normalize_input:
                x = unit_norm(x)
            return self._map(x)

    def at(self, layer: int | None, kind: str | None) -> Adapter:
        """The adapter for states of one place: a specialist where there is one, else this one.

        layer: zero-based block; kind: kind of position (dataset/captured.py).
        """
        if layer is None or kind is None:
            return self
        return self.specialists.get((layer, kind), self)

    def grouped_parameters(self) -> dict[ParameterGroup, list[nn.Parameter]]:
        """The parameters of each group, for the optimizer; groups without any are omitted.

        Raises AdapterError if a parameter has no group or one that does not exist, or if the class
        declares a parameter that the adapter lacks.
        """
        parameters, declared = dict(self.named_parameters()), self.parameter_groups
        groups = get_args(ParameterGroup)
        for name in parameters.keys() - declared.keys():
            raise AdapterError(
                f'the parameter "{name}" of the adapter kind "{self.kind}" is in no parameter '
                f"group, so it would not be trained. Add it to the groups of the class "
                f"{type(self).__name__}, as one of {', '.join(groups)}."
            )
        for name, group in declared.items():
            if name not in parameters:
                raise AdapterError(
                    f'the groups of the adapter kind "{self.kind}" name "{name}", which is '
                    f"not a parameter of it. {nearest(name, parameters)}"
                )
            if group not in groups:
                raise AdapterError(
                    f'parameter "{name}" of the adapter kind "{self.kind}": unknown parameter '
                    f'group "{group}". {nearest(group, groups)}'
                )
        return {
            group: members
            for group in groups
            if (members := [parameters[name] for name in declared if declared[name] == group])
        }

    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())

    @torch.no_grad()
    def scale(self) -> float | None:
        """exp(log_scale): what the identity part multiplies by; None for kinds without it."""
        return None

    @torch.no_grad()
    def bias_norm(self) -> float | None:
        """L2 norm of the bias; None for kinds without one."""
        bias = getattr(self, "bias", None)
        return None if bias is None else bias.float().norm().item()

    @torch.no_grad()
    def singular_values(self) -> Tensor | None:
        """Singular values, descending, of the map's matrix without the scaled identity:
        `[r]` of U Vᵀ, `[d]` of W; None for kinds without a matrix."""
        return None

    def low_rank_share(self) -> float | None:
        """‖U Vᵀ‖_F / (scale · √d): the low-rank part relative to the scaled identity, whose
        Frobenius norm is scale · √d. None where either part is missing."""
        return None

    def projection_section(self) -> dict[str, Any]:
        """The `projection` section of a config that describes this adapter."""
        return {
            "type": self.kind,
            "normalize_input": self.normalize_input,
            "init_scale": self.init_scale,
            "low_rank_rank": self.low_rank_rank,
            "low_rank_init_factor": self.low_rank_init_factor,
        }

    def get_metadata(self) -> dict[str, Any]:
        """Everything about the adapter but its numbers, in plain JSON values.

        Some values have two names: the published one (`projection_type`, `model_dim`) and ours.
        """
        return {
            "kind": self.kind,
            "projection_type": self.kind,
            "dim": self.dim,
            "model_dim": self.dim,
            "num_parameters": self.num_parameters(),
            "projection_num_params": self.num_parameters(),
            "checkpoint_format_version": FORMAT_VERSION,
            "normalize_input": self.normalize_input,
            "init_scale": self.init_scale,
            "low_rank_rank": self.low_rank_rank,
            "low_rank_init_factor": self.low_rank_init_factor,
            "global_step": self.record.global_step,
            "best_val_loss": self.record.best_val_loss,
            "config": {**self.record.config, "projection": self.projection_section()},
            "binding": None if self.binding is None else self.binding.model_dump(mode="json"),
        }

    def save(self, path: str | Path) -> Path:
        """Write a `.safetensors` or `.pt` file atomically, in the published format.

        Raises AdapterError for another suffix, for parameters that are NaN or infinite, and for a
        record that holds anything but plain JSON values.
        """
        from selfie_adapters.adapters.checkpoint import save_adapter  # it imports this module

        return save_adapter(self, path)

    def extra_repr(self) -> str:
        rank = "" if self.low_rank_rank is None else f"low_rank_rank={self.low_rank_rank}, "
        return f"dim={self.dim}, {rank}normalize_input={self.normalize_input}"


def _full_name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
