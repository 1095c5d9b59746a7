"""The adapter kinds: the formula, parameters and initial values of each, and `create_adapter`.

x is a row vector, already normalized where the adapter normalizes. Formulas and initial values are
those of the published adapter files. To add a kind, see "How to add an adapter kind" in
CONTRIBUTING.md.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from selfie_adapters.adapters.base import KINDS, Adapter
from selfie_adapters.errors import AdapterError, nearest

_WIDEST = 2**20


class Identity(Adapter, kind="identity"):
    """f(x) = x: the vector itself as soft token. No parameters; the baseline."""

    def _map(self, x: Tensor) -> Tensor:
        return x


class ScaleOnly(Adapter, kind="scale_only", groups={"log_scale": "scale"}):
    """f(x) = exp(log_scale)·x. One parameter; log_scale starts at ln(init_scale)."""

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


class ScalarAffine(ScaleOnly, kind="scalar_affine", groups={"log_scale": "scale", "bias": "bias"}):
    """f(x) = exp(log_scale)·x + bias. d + 1 parameters; the bias starts at 0."""

    bias: nn.Parameter  # [d]

    def _make_parameters(self) -> None:
        super()._make_parameters()
        self.bias = nn.Parameter(torch.empty(self.dim))

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        super().reset_parameters(generator)
        nn.init.zeros_(self.bias)

    def _map(self, x: Tensor) -> Tensor:
        return super()._map(x) + self.bias.float()


class _Factors(Adapter):
    """The factors U and V of the two low-rank kinds. Abstract: it has no formula of its own."""

    U: nn.Parameter  # [d, r]
    V: nn.Parameter  # [d, r]

    def _make_factors(self) -> None:
        assert self.low_rank_rank is not None  # build_adapter checks it
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
        """(xU)Vᵀ: 2·d·r multiplications per vector; the d×d matrix is never formed."""
        return (x @ self.U.float()) @ self.V.float().T

    @torch.no_grad()
    def singular_values(self) -> Tensor | None:
        # U = Q₁R₁ and V = Q₂R₂ with orthonormal Q, so U Vᵀ = Q₁(R₁R₂ᵀ)Q₂ᵀ has the singular values
        # of the r×r matrix in the middle. float64: a product of two large float32 may overflow.
        r1 = torch.linalg.qr(self.U.double(), mode="r").R
        r2 = torch.linalg.qr(self.V.double(), mode="r").R
        return torch.linalg.svdvals(r1 @ r2.T).float()


class LowRankOnly(
    _Factors,
    kind="low_rank_only",
    groups={"U": "direction", "V": "direction", "bias": "bias"},
    takes_rank=True,
):
    """f(x) = (xU)Vᵀ + bias. 2dr + d parameters; the bias starts at 0."""

    bias: nn.Parameter  # [d]

    def _make_parameters(self) -> None:
        self._make_factors()
        self.bias = nn.Parameter(torch.empty(self.dim))

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        self._reset_factors(generator)
        nn.init.zeros_(self.bias)

    def _map(self, x: Tensor) -> Tensor:
        return self._low_rank(x) + self.bias.float()


class ScalarAffinePlusLowRank(
    _Factors,
    ScalarAffine,
    kind="scalar_affine_plus_low_rank",
    groups={"log_scale": "scale", "bias": "bias", "U": "direction", "V": "direction"},
    takes_rank=True,
):
    """f(x) = exp(log_scale)·x + (xU)Vᵀ + bias. 2dr + d + 1 parameters."""

    def _make_parameters(self) -> None:
        super()._make_parameters()
        self._make_factors()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        super().reset_parameters(generator)
        self._reset_factors(generator)

    def _map(self, x: Tensor) -> Tensor:
        return super()._map(x) + self._low_rank(x)

    def low_rank_share(self) -> float | None:
        values, scale = self.singular_values(), self.scale()
        assert values is not None
        assert scale is not None
        # ‖U Vᵀ‖_F is the norm of the singular values
        return values.norm().item() / (scale * math.sqrt(self.dim))


class FullRank(Adapter, kind="full_rank", groups={"weight": "direction", "bias": "bias"}):
    """f(x) = x Wᵀ + bias. d² + d parameters; W starts normal with std init_scale·√(1/d), so that
    a unit vector maps to a vector of norm about init_scale; the bias starts at 0."""

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


def create_adapter(
    kind: str,
    dim: int,
    *,
    normalize_input: bool = True,
    init_scale: float = 30.0,
    low_rank_rank: int | None = None,
    low_rank_init_factor: float = 0.01,
    seed: int | None = None,
) -> Adapter:
    """A new adapter of `kind` for vectors of width `dim`, on the CPU, at its initial values.

    `normalize_input`: divide each vector by its L2 norm first. `init_scale`: the norm of the soft
    token of a unit vector at the start. `low_rank_rank`: the rank r of U Vᵀ, for the two low-rank
    kinds only (None elsewhere). `low_rank_init_factor`: initial size of the factors relative to
    init_scale. `seed`: for the random initial values; without it torch's global generator is used.
    Raises AdapterError for an unknown kind and for a value that does not fit the kind.
    """
    adapter = build_adapter(
        kind,
        dim,
        normalize_input=normalize_input,
        init_scale=init_scale,
        low_rank_rank=low_rank_rank,
        low_rank_init_factor=low_rank_init_factor,
    )
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    adapter.reset_parameters(generator)
    return adapter


def build_adapter(
    kind: str,
    dim: int,
    *,
    normalize_input: bool,
    init_scale: float,
    low_rank_rank: int | None,
    low_rank_init_factor: float,
) -> Adapter:
    """An adapter whose parameters are allocated and hold no meaningful values yet.

    Takes the options of `create_adapter` but for the seed, all required, and raises like it.
    """
    if kind not in KINDS:
        raise AdapterError(f'unknown adapter kind "{kind!s:.60}". {nearest(kind, KINDS)}')
    if not _whole(dim) or dim < 1:
        raise AdapterError(f"dim must be an integer of at least 1, not {dim!r}.")
    if dim > _WIDEST:
        raise AdapterError(f"dim is {dim:.3g}; no model is wider than {_WIDEST:,}.")
    for name, value in (
        ("init_scale", init_scale),
        ("low_rank_init_factor", low_rank_init_factor),
    ):
        if not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
            raise AdapterError(f"{name} must be a number above 0, not {value!r}.")
    if KINDS[kind].takes_rank:
        if low_rank_rank is None:
            raise AdapterError(f"{kind} needs low_rank_rank, the rank of U Vᵀ, such as 16.")
        if not _whole(low_rank_rank) or not 1 <= low_rank_rank <= dim:
            raise AdapterError(
                f"low_rank_rank must be an integer from 1 to {dim} (the width), "
                f"not {low_rank_rank!r}."
            )
    elif low_rank_rank is not None:
        with_rank = " and ".join(name for name, cls in KINDS.items() if cls.takes_rank)
        raise AdapterError(
            f"{kind} has no low-rank part: omit low_rank_rank (it is {low_rank_rank!r}), "
            f"or choose a kind that has one: {with_rank}."
        )
    return KINDS[kind](
        dim,
        normalize_input=normalize_input,
        init_scale=init_scale,
        low_rank_rank=low_rank_rank,
        low_rank_init_factor=low_rank_init_factor,
    )


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
