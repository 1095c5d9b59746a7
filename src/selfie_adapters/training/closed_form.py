"""A start that is computed instead of learnt: vectors regressed on the embeddings of their labels.

A soft token that says "cat" should lie near the embeddings of the label's tokens. So the first
adapter is the ridge regression from vectors to the mean token embedding of their labels, in the
metric of the embedding layer's output; kinds with fewer parameters get its best approximation.
The regression gives directions. Lengths are another matter: squared error shrinks a prediction
towards the mean of all labels, and a soft token works best longer than an embedding. So the size of
each part of the map is then chosen by the loss itself, forward passes only. Ridge and sizes are
chosen on examples whose vectors are held out of the regression that they are chosen for; the start
is then the regression on all vectors, at that ridge and these sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from selfie_adapters.adapters import Adapter
from selfie_adapters.adapters.base import unit_norm
from selfie_adapters.errors import ConfigError
from selfie_adapters.inference.label_batches import LabelTokens, tokenize_labels
from selfie_adapters.inference.label_loss import Objective
from selfie_adapters.model import FrozenModel
from selfie_adapters.model.fingerprint import mean_embedding_norm

VECTORS_A_DIMENSION = 10  # how many vectors are read, at most, for each of their numbers
RIDGES = tuple(10.0**power for power in range(-5, 3))  # relative to the vectors' mean variance
HELD_OUT = 0.1
PROBES = 32  # examples on which sizes are chosen
SIZES = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0)  # of each part, in mean norms of embeddings

# Parts of a map, in the order in which their sizes are chosen, and the parameters that hold them.
_PARTS = {"common": ("bias",), "matrix": ("weight", "U"), "identity": ("log_scale",)}


@dataclass(frozen=True)
class Regression:
    """x → (x - mean_x) @ matrix + mean_y.

    explained: share of the variance of held-out targets; ridge: the strength chosen there.
    """

    matrix: Tensor  # [d, d]
    mean_x: Tensor  # [d]
    mean_y: Tensor  # [d]
    covariance: Tensor  # [d, d], of the vectors
    ridge: float
    explained: float


def word_tokens(model: FrozenModel, labels: Sequence[str]) -> LabelTokens:
    """Tokens of labels as they are inside a sentence, after a space: those of whole words.

    Their embeddings say more about a label than those of the pieces that follow a quote.
    """
    no_end = 0  # the closing quote and the end token are never looked at
    return tokenize_labels(model.tokenizer, [f" {label.strip()}" for label in labels], no_end)


@torch.no_grad()
def label_embeddings(model: FrozenModel, labels: LabelTokens) -> Tensor:
    """Mean output of the embedding layer over each label's own tokens: [labels, d_model], float32.

    The closing quote and the end token are omitted. (A quote that the tokenizer merged with the
    label's last letters takes those along.)
    """
    own = (labels.lengths - 2).clamp(min=1)
    of = torch.repeat_interleave(torch.arange(len(labels)), own)
    within = torch.arange(of.numel()) - (own.cumsum(0) - own)[of]
    ids = labels.ids[labels.starts[of] + within]
    sums = torch.zeros(len(labels), model.d_model)
    for at in range(0, ids.numel(), 4096):
        some = ids[at : at + 4096].unsqueeze(0).to(model.device)
        sums.index_add_(0, of[at : at + 4096], model.embedding(some)[0].float().cpu())
    return sums / own.unsqueeze(1)


def fit(x: Tensor, y: Tensor, seed: int = 0) -> Regression:
    """Ridge regression of y [n, d] on x [n, d]; its strength is chosen on a tenth held out."""
    return held_out_fits(x, y, seed)[0]


def held_out_fits(x: Tensor, y: Tensor, seed: int = 0) -> tuple[Regression, Regression, Tensor]:
    """`fit` on all rows; the same without the rows held out, at the same ridge; and those rows.

    Held out are a tenth, or PROBES rows of small data. With fewer than three rows nothing can be:
    both regressions are of all rows, and all are returned.
    """
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    held = max(1, round(HELD_OUT * len(x)), min(PROBES, len(x) // 4))
    if len(x) - held < 2:
        both = _regression(x, y, _solver(x, y), RIDGES[-1], 0.0)
        return both, both, order
    train, test = order[held:], order[:held]
    solve = _solver(x[train], y[train])
    centered = (x[test] - x[train].mean(0)).double()
    wanted = (y[test] - y[train].mean(0)).double()
    shares = [
        float(1 - (wanted - centered @ solve(ridge)).square().sum() / wanted.square().sum())
        for ridge in RIDGES
    ]
    best = max(range(len(RIDGES)), key=shares.__getitem__)
    ridge, share = RIDGES[best], shares[best]
    whole = _regression(x, y, _solver(x, y), ridge, share)
    return whole, _regression(x[train], y[train], solve, ridge, share), test


def _regression(
    x: Tensor, y: Tensor, solve: Callable[[float], Tensor], ridge: float, explained: float
) -> Regression:
    matrix = solve(ridge).float()
    return Regression(matrix, x.mean(0), y.mean(0), _covariance(x).float(), ridge, explained)


def _covariance(x: Tensor) -> Tensor:
    centered = (x - x.mean(0)).double()
    return centered.T @ centered / len(x)


def _solver(x: Tensor, y: Tensor) -> Callable[[float], Tensor]:
    """ridge → matrix [d, d] of the regression of y on x; one eigendecomposition serves them all."""
    values, basis = torch.linalg.eigh(_covariance(x))
    values = values.clamp(min=0)
    cross = basis.T @ ((x - x.mean(0)).double().T @ (y - y.mean(0)).double()) / len(x)
    return lambda ridge: basis @ (cross / (values + ridge * values.mean()).unsqueeze(1))


def low_rank(matrix: Tensor, covariance: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """U, V [d, rank] with x @ U @ V.T as near to x @ matrix as that rank allows.

    Near in mean square over vectors of this covariance (reduced-rank regression), not entry by
    entry. The factors share the size equally.
    """
    # x @ matrix varies most along the leading directions of matrix.T @ covariance @ matrix
    _, basis = torch.linalg.eigh((matrix.T @ covariance @ matrix).double())
    leading = basis[:, -rank:].flip(1).float()
    left, sizes, right = torch.linalg.svd(matrix @ leading @ leading.T, full_matrices=False)
    root = sizes[:rank].sqrt()
    return left[:, :rank] * root, right[:rank].T * root


def set_map(adapter: Adapter, regression: Regression, unit: float, sizes: dict[str, float]) -> None:
    """Write the regression into the adapter's parameters, each part at the size asked for.

    sizes, in multiples of `unit`: "common", the norm of the mean soft token; "identity" and
    "matrix", how far (root mean square) that part alone spreads soft tokens around their mean.
    Parts that the kind lacks are omitted.
    """
    parameters = {name: parameter.data for name, parameter in adapter.named_parameters()}
    d = adapter.dim
    eye, covariance = torch.eye(d), regression.covariance
    spread = covariance.trace().sqrt()
    linear = torch.zeros(d, d)
    if "log_scale" in parameters:
        scale = sizes["identity"] * unit / spread
        parameters["log_scale"].fill_(scale.log())
        linear += scale * eye
    shape = regression.matrix
    if "log_scale" in parameters:  # the rest after the best multiple of the identity
        shape = shape - (covariance @ shape).trace() / covariance.trace() * eye
    if "weight" in parameters or "U" in parameters:
        factors = None
        if "U" in parameters:
            assert adapter.low_rank_rank is not None
            factors = low_rank(shape, covariance, adapter.low_rank_rank)
            shape = factors[0] @ factors[1].T
        factor = sizes["matrix"] * unit / (shape.T @ covariance @ shape).trace().sqrt()
        linear += factor * shape
        if factors is None:
            parameters["weight"].copy_(factor * shape.T)
        else:
            parameters["U"].copy_(factor.sqrt() * factors[0])
            parameters["V"].copy_(factor.sqrt() * factors[1])
    if "bias" in parameters:
        common = sizes["common"] * unit * regression.mean_y / regression.mean_y.norm()
        parameters["bias"].copy_(common - regression.mean_x @ linear)


@dataclass(frozen=True)
class ClosedFormStart:
    """What the start came to: sizes of the parts (see `set_map`), and the loss on the probes, whose
    vectors were held out."""

    sizes: dict[str, float]
    loss: float
    ridge: float
    explained: float
    vectors: int


def closed_form_start(
    adapter: Adapter,
    objective: Objective,
    vectors: Callable[[Tensor], Tensor],
    labels: LabelTokens,
    texts: Sequence[str],
    vector_of: Tensor,
    chosen: Tensor | None = None,
    seed: int = 0,
) -> ClosedFormStart:
    """Set `adapter` to the regression of label embeddings on vectors, at the sizes of least loss.

    vectors: raw vectors [n, d_model] of the examples asked for ([n] numbers); labels, strings,
    vector_of: tokens, text and vector of the label of each example. chosen: the examples to start
    from, None: all. Costs one pass over at most 10·d_model vectors and at most
    some thirty forward passes of `PROBES` examples, none with gradients.
    Raises ConfigError for an adapter without parameters, and for fewer than two vectors.
    """
    if not adapter.num_parameters():
        raise ConfigError(
            f"projection.init: {adapter.kind} has no parameters to initialize. Use "
            "projection.init: published."
        )
    known = {name for parameters in _PARTS.values() for name in parameters} | {"V"}
    if unknown := dict(adapter.named_parameters()).keys() - known:
        raise ConfigError(
            f"projection.init: closed_form has no value for {', '.join(sorted(unknown))} of "
            f"{adapter.kind}. Use published."
        )
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.arange(len(labels)) if chosen is None else chosen
    words = word_tokens(objective.model, [texts[int(i)] for i in chosen])
    targets = label_embeddings(objective.model, words)
    x, y, owners = _pairs(adapter, vectors, chosen, targets, vector_of[chosen], generator)
    if len(x) < 2:
        raise ConfigError("projection.init: closed_form needs two vectors or more.")
    regression, without, held = held_out_fits(x, y, seed)
    unit = mean_embedding_norm(objective.model)
    free = chosen[torch.isin(vector_of[chosen], owners[held])]  # their examples
    probes = free[torch.randperm(len(free), generator=generator)[:PROBES]]
    probed = vectors(probes)
    names = dict(adapter.named_parameters())
    parts = [
        part
        for part, parameters in _PARTS.items()
        if any(parameter in names for parameter in parameters)
    ]

    measured: dict[tuple[float, ...], float] = {}  # the second round asks for many of them again

    @torch.no_grad()
    def loss(sizes: dict[str, float]) -> float:
        key = tuple(sizes.values())
        if key not in measured:
            set_map(adapter, without, unit, sizes)
            soft = adapter(probed)
            measured[key] = float(objective.all_losses(soft, labels, probes).per_example.mean())
        return measured[key]

    sizes = dict.fromkeys(_PARTS, 1.0)
    least = loss(sizes)
    for part in [*parts, *parts]:  # twice: the best size of one depends on the others
        tried = {size: loss({**sizes, part: size}) for size in SIZES if size != sizes[part]}
        size = min(tried, key=tried.__getitem__)
        if tried[size] < least:
            least, sizes = tried[size], {**sizes, part: size}
    set_map(adapter, regression, unit, sizes)
    used = {part: sizes[part] for part in parts}
    return ClosedFormStart(used, least, regression.ridge, regression.explained, len(x))


def _pairs(
    adapter: Adapter,
    vectors: Callable[[Tensor], Tensor],
    chosen: Tensor,
    targets: Tensor,
    vector_of: Tensor,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor, Tensor]:
    """What to regress: vectors as the adapter sees them, the mean target of their labels, and each
    one's number as in `vector_of`.

    targets, vector_of: of the examples `chosen`.
    """
    numbers, vector, counts = torch.unique(vector_of, return_inverse=True, return_counts=True)
    n = counts.numel()
    y = torch.zeros(n, adapter.dim).index_add(0, vector, targets)
    first = torch.full((n,), len(chosen)).scatter_reduce(
        0, vector, torch.arange(len(chosen)), "amin"
    )
    some = torch.randperm(n, generator=generator)[: VECTORS_A_DIMENSION * adapter.dim]
    x = vectors(chosen[first[some]]).float()
    x = unit_norm(x) if adapter.normalize_input else x
    return x, y[some] / counts[some].unsqueeze(1), numbers[some]
