"""Adapters with a low-rank matrix U Vᵀ, with or without the scaled identity beside it.

Formulas and initial values as published (FACTS §4). x is a row vector; U and V are `[d, r]`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from selfie_adapters.adapters.affine import ScalarAffine
from selfie_adapters.adapters.base import Adapter


class _Factors(Adapter):
    """The two factors, and what is the same for both kinds that have them."""

    takes_rank = True
    U: nn.Parameter  # [d, r]
    V: nn.Parameter  # [d, r]

    def _make_factors(self) -> None:
        assert self.low_rank_rank is not None  # create_adapter and load_adapter see to it
        self.U = nn.Parameter(torch.empty(self.dim, self.low_rank_rank))
        self.V = nn.Parameter(torch.empty(self.dim, self.low_rank_rank))

    def _reset_factors(self, generator: torch.Generator | None) -> None:
        """Normal with std init_scale·low_rank_init_factor/√r. Neither factor may start at zero:
        with both at zero neither would ever get a gradient."""
        assert self.low_rank_rank is not None
        std = self.init_scale * self.low_rank_init_factor / math.sqrt(self.low_rank_rank)
        nn.init.normal_(self.U, std=std, generator=generator)
        nn.init.normal_(self.V, std=std, generator=generator)

    def _low_rank(self, x: Tensor) -> Tensor:
        """(xU)Vᵀ: 2·d·r products a vector; the d×d matrix is never formed."""
        return (x @ self.U.float()) @ self.V.float().T

    @torch.no_grad()
    def singular_values(self) -> Tensor | None:
        # U = Q₁R₁ and V = Q₂R₂ with orthonormal Q, so U Vᵀ = Q₁(R₁R₂ᵀ)Q₂ᵀ has the singular values
        # of the r×r matrix in the middle.
        # float64: the product of two large numbers of float32 may be none.
        r1 = torch.linalg.qr(self.U.double(), mode="r").R
        r2 = torch.linalg.qr(self.V.double(), mode="r").R
        return torch.linalg.svdvals(r1 @ r2.T).float()


class LowRankOnly(_Factors):
    """f(x) = (xU)Vᵀ + bias. 2dr + d parameters; the bias starts at 0."""

    kind = "low_rank_only"
    bias: nn.Parameter  # [d]

    def _make_parameters(self) -> None:
        self._make_factors()
        self.bias = nn.Parameter(torch.empty(self.dim))

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        self._reset_factors(generator)
        nn.init.zeros_(self.bias)

    def _map(self, x: Tensor) -> Tensor:
        return self._low_rank(x) + self.bias.float()


class ScalarAffinePlusLowRank(_Factors, ScalarAffine):
    """f(x) = exp(log_scale)·x + (xU)Vᵀ + bias. 2dr + d + 1 parameters."""

    kind = "scalar_affine_plus_low_rank"

    def _make_parameters(self) -> None:
        ScalarAffine._make_parameters(self)
        self._make_factors()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        ScalarAffine.reset_parameters(self, generator)
        self._reset_factors(generator)

    def _map(self, x: Tensor) -> Tensor:
        return ScalarAffine._map(self, x) + self._low_rank(x)

    def low_rank_share(self) -> float | None:
        values, scale = self.singular_values(), self.scale()
        assert values is not None
        assert scale is not None
        # ‖U Vᵀ‖_F is the norm of the singular values
        return values.norm().item() / (scale * math.sqrt(self.dim))
