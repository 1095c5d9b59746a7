"""What every adapter is: a map R^d → R^d with a kind, a width, a training record and a binding."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from selfie_adapters.adapters.binding import Binding
from selfie_adapters.errors import AdapterError

FORMAT_VERSION = 1
"""Version of the checkpoint format, as it is stored in `.pt` files."""

NORM_EPSILON = 1e-8
"""Added to the L2 norm before dividing, so that the zero vector stays zero."""


@dataclass(frozen=True)
class TrainingRecord:
    """How an adapter came to be: the resolved training config (plain JSON values), the optimiser
    step it was taken at, and the best validation loss (nats per token; None before any validation).
    """

    config: dict[str, Any] = field(default_factory=dict)
    global_step: int = 0
    best_val_loss: float | None = None

    def __post_init__(self) -> None:
        # Trainers start from an infinite best loss; infinity here says no more than None.
        if self.best_val_loss is not None and not math.isfinite(self.best_val_loss):
            object.__setattr__(self, "best_val_loss", None)


def unit_norm(vectors: Tensor) -> Tensor:
    """x / (‖x‖₂ + 1e-8) over the last axis, same shape. The published normalisation."""
    return vectors / (vectors.norm(dim=-1, keepdim=True) + NORM_EPSILON)


class Adapter(nn.Module, ABC):
    """A trainable map from vectors `[n, d]` to soft tokens `[n, d]`.

    Parameters are float32 and carry the published names (`log_scale`, `bias`, `U`, `V`, `weight`),
    so that `state_dict()` holds exactly the published tensors. `record` says how it was trained,
    `binding` what it was trained for; both travel in the file.
    """

    kind: ClassVar[str]
    takes_rank: ClassVar[bool] = False

    device_marker: Tensor

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
        self.file: Path | None = None  # where it was loaded from; means and calibration are beside
        self.specialists: dict[tuple[int, str], Adapter] = {}  # by layer and kind of position
        # An adapter may have no parameters; this empty buffer still follows `.to(device)`. It is
        # made on the CPU even under torch.device("meta"), and is never saved.
        self.register_buffer("device_marker", torch.empty(0, device="cpu"), persistent=False)
        self._make_parameters()

    def _make_parameters(self) -> None:
        """Allocate the parameters; their values come from `reset_parameters` or a file."""

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Set the published initial values; random ones from `generator` (default: global)."""

    @abstractmethod
    def _map(self, x: Tensor) -> Tensor:
        """The map itself, on float32 vectors that are normalised already if they should be."""

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

        layer: zero-based block; kind: kind of position (dataset/position_kind.py).
        """
        if layer is None or kind is None:
            return self
        return self.specialists.get((layer, kind), self)

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
        """Singular values, descending, of the map's matrix beside the scaled identity:
        `[r]` of U Vᵀ, `[d]` of W; None for kinds without a matrix."""
        return None

    def low_rank_share(self) -> float | None:
        """‖U Vᵀ‖_F / (scale · √d): the low-rank part against the scaled identity, whose Frobenius
        norm is scale · √d. None where either part is missing."""
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

        The published names (`projection_type`, `model_dim`, …) are there beside this project's.
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
