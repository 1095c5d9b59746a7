"""Adapters without factors: identity, scale, scale and bias, full matrix and bias.

Formulas and initial values as published (FACTS §4). x is a row vector.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from selfie_adapters.adapters.base import Adapter


class Identity(Adapter):
    """f(x) = x: the vector itself as soft token. No parameters; the baseline."""

    kind = "identity"

    def _map(self, x: Tensor) -> Tensor:
        return x


class ScaleOnly(Adapter):
    """f(x) = exp(log_scale)·x. One parameter; log_scale starts at ln(init_scale)."""

    kind = "scale_only"
    log_scale: nn.Parameter  # [1]; a logarithm, so that the scale stays positive

    def _make_parameters(self) -> None:
        self.log_scale = nn.Parameter(torch.empty(1))

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        nn.init.constant_(self.log_scale, math.log(self.init_scale))

    def _map(self, x: Tensor) -> Tensor:
        return self.log_scale.float().exp() * x

    @torch.no_grad()
    def scale(self) -> float | None:
        return self.log_scale.float().exp().item()


class ScalarAffine(ScaleOnly):
    """f(x) = exp(log_scale)·x + bias. d + 1 parameters; the bias starts at 0."""

    kind = "scalar_affine"
    bias: nn.Parameter  # [d]

    def _make_parameters(self) -> None:
        super()._make_parameters()
        self.bias = nn.Parameter(torch.empty(self.dim))

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        super().reset_parameters(generator)
        nn.init.zeros_(self.bias)

    def _map(self, x: Tensor) -> Tensor:
        return super()._map(x) + self.bias.float()


class FullRank(Adapter):
    """f(x) = x Wᵀ + bias. d² + d parameters; W starts normal with std init_scale·√(1/d), so that
    a unit vector maps to a vector of norm about init_scale; the bias starts at 0."""

    kind = "full_rank"
    weight: nn.Parameter  # [d, d]
    bias: nn.Parameter  # [d]

    def _make_parameters(self) -> None:
        self.weight = nn.Parameter(torch.empty(self.dim, self.dim))
        self.bias = nn.Parameter(torch.empty(self.dim))

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        std = self.init_scale * math.sqrt(1 / self.dim)
        nn.init.normal_(self.weight, std=std, generator=generator)
        nn.init.zeros_(self.bias)

    def _map(self, x: Tensor) -> Tensor:
        return x @ self.weight.float().T + self.bias.float()

    @torch.no_grad()
    def singular_values(self) -> Tensor | None:
        return torch.linalg.svdvals(self.weight.float())
