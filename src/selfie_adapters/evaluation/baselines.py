"""What names vectors without an adapter: logit lens, cosine with token embeddings, ridge probe.

Each gives an open answer, its best tokens as words, and scores of candidate names. The names'
tokens are those that they have inside a sentence, after a space: tokens of whole words begin with
one, so that each baseline is as good as it can be. Vectors are centered: a state minus the mean of
its block and kind of position. `untrained_readers` makes those that a model and its training
vectors allow.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from selfie_adapters.adapters.base import unit_norm
from selfie_adapters.errors import DataError, ModelError
from selfie_adapters.inference.label_batches import LabelTokens
from selfie_adapters.inference.logit_lens import check_lens, lens_logits
from selfie_adapters.model import FrozenModel
from selfie_adapters.training.closed_form import (
    VECTORS_A_DIMENSION,
    fit,
    label_embeddings,
    word_tokens,
)

LABEL_WORDS = 3
"""Words in a label that a `TokenBaseline` gives."""
_TOKENS_AT_ONCE = 8192
_TIE_BREAK = 1e-6


class Baseline(Protocol):
    """A method that names vectors and needs no adapter."""

    name: str
    meaning: str

    def words(self, vectors: Tensor) -> list[str]:
        """The best token of each vector [n, d_model], decoded, no whitespace around it."""
        ...

    def scores(self, vectors: Tensor, names: Sequence[str]) -> Tensor:
        """How well each name fits each vector: [n, names], float64; higher is better."""
        ...


class TokenBaseline(ABC):
    """A baseline that answers with tokens of the vocabulary."""

    name: str
    meaning: str

    def __init__(self, model: FrozenModel) -> None:
        self._model = model

    @abstractmethod
    def tokens(self, vectors: Tensor, count: int = 1) -> Tensor:
        """Ids of the best tokens of each vector [n, d_model], best first: [n, count]."""

    @abstractmethod
    def scores(self, vectors: Tensor, names: Sequence[str]) -> Tensor:
        """As in `Baseline`."""

    def words(self, vectors: Tensor) -> list[str]:
        """The best token of each vector, decoded, without whitespace around it."""
        best = self.tokens(vectors)[:, 0].tolist()
        return [str(self._model.tokenizer.decode([token])).strip() for token in best]

    def labels(self, vectors: Tensor) -> list[str]:
        """A label of each vector: its `LABEL_WORDS` best tokens as words, separated by commas, each
        word once, without blank ones."""
        found = []
        for row in self.tokens(vectors, 4 * LABEL_WORDS).tolist():
            words = (str(self._model.tokenizer.decode([token])).strip() for token in row)
            found.append(", ".join(list(dict.fromkeys(filter(None, words)))[:LABEL_WORDS]))
        return found

    @torch.no_grad()
    def soft_tokens(self, vectors: Tensor) -> Tensor:
        """What the baseline puts in an adapter's place: the embedding of its best token, [n,
        d_model], float32 on the CPU."""
        ids = self.tokens(vectors).to(self._model.device)
        return self._model.embedding(ids)[:, 0].float().cpu()


def untrained_readers(
    model: FrozenModel, vectors: Tensor, names: Sequence[str], seed: int = 0
) -> list[TokenBaseline]:
    """The logit lens where the model has one, the cosine, and a ridge probe where there are two
    training vectors or more: vectors [n, d_model] with their names."""
    found: list[TokenBaseline] = []
    try:
        check_lens(model)
        found.append(LogitLens(model))
    except ModelError:
        pass
    found.append(TokenCosine(model))
    if len(vectors) > 1:
        found.append(RidgeProbe(model, vectors, names, seed))
    return found


def not_measured(measured: Collection[str], without_probe: str) -> dict[str, str]:
    """For results.json: each reader that `untrained_readers` could not make, and why.

    measured: names of those there are. without_probe: why there is no ridge probe.
    """
    reasons = {
        LogitLens.name: "the model does more after its last block than a norm and a linear head",
        RidgeProbe.name: without_probe,
    }
    return {name: reason for name, reason in reasons.items() if name not in measured}


def not_measured_line(results: Mapping[str, Any]) -> Iterator[str]:
    """What a report states of the readers in `not_measured` of results.json; nothing if all are
    measured."""
    reasons = results.get("not_measured", {})  # not in results of earlier releases
    if reasons:
        listed = "; ".join(f"{name} ({reason})" for name, reason in reasons.items())
        yield f"not measured: {listed}"


class LogitLens(TokenBaseline):
    """The model's own final norm and unembedding on each vector (`inference.logit_lens`).

    A name scores the logit of its first token; among names with the same first token, the mean
    logit of all of a name's tokens decides.
    """

    name = "logit lens"
    meaning = "vector × final norm × unembedding, best token"

    def tokens(self, vectors: Tensor, count: int = 1) -> Tensor:
        """Raises ModelError where the model has no lens (`check_lens`), DataError for vectors of
        another width; `scores` too."""
        found = [torch.empty(0, count, dtype=torch.int64)]
        return torch.cat(
            found + [_best(logits, count)[1] for logits in lens_logits(self._model, vectors)]
        )

    def scores(self, vectors: Tensor, names: Sequence[str]) -> Tensor:
        tokens = word_tokens(self._model, names)
        own = _own_lengths(tokens)
        owner = torch.repeat_interleave(torch.arange(len(own)), own)
        within = torch.arange(len(owner)) - (own.cumsum(0) - own)[owner]
        ids = tokens.ids[tokens.starts[owner] + within]
        first = tokens.ids[tokens.starts]
        found = [torch.empty(0, len(names), dtype=torch.float64)]
        for logits in lens_logits(self._model, vectors):
            values = logits.double()
            sums = torch.zeros(len(values), len(names), dtype=torch.float64)
            mean = sums.index_add(1, owner, values[:, ids]) / own
            found.append(values[:, first] + _TIE_BREAK * mean)
        return torch.cat(found)


class TokenCosine(TokenBaseline):
    """Cosine of the vector with token embeddings; of a name, with their mean over its tokens."""

    name = "cosine"
    meaning = "token embedding with the highest cosine"

    def tokens(self, vectors: Tensor, count: int = 1) -> Tensor:
        return _nearest_tokens(self._model, vectors, torch.zeros(self._model.d_model), count)

    def scores(self, vectors: Tensor, names: Sequence[str]) -> Tensor:
        of_names = label_embeddings(self._model, word_tokens(self._model, names))
        return unit_norm(vectors.double()) @ unit_norm(of_names.double()).T


class RidgeProbe(TokenBaseline):
    """Ridge regression from training vectors to the mean embedding of their names' tokens.

    It is the regression that the closed-form start of an adapter uses (`training.closed_form`), on
    unit vectors; its strength is chosen on a tenth held out. A name scores the cosine of its
    embedding with the prediction, both minus the mean of the training names.
    """

    name = "ridge probe"
    meaning = "linear map to token embeddings fitted on the training vectors, nearest token"

    def __init__(
        self, model: FrozenModel, vectors: Tensor, names: Sequence[str], seed: int = 0
    ) -> None:
        """vectors: training ones, [n, d_model]; names: one per vector. Of more than 10·d_model
        vectors that many are sampled. Raises DataError for fewer than two."""
        if len(vectors) < 2:
            raise DataError(
                f"a ridge probe is fitted on training vectors; found {len(vectors)}, at least 2 "
                "are needed."
            )
        super().__init__(model)
        generator = torch.Generator().manual_seed(seed)
        some = torch.randperm(len(vectors), generator=generator)
        some = some[: VECTORS_A_DIMENSION * model.d_model]
        chosen = [names[int(i)] for i in some]
        targets = label_embeddings(model, word_tokens(model, chosen))
        self._regression = fit(unit_norm(vectors[some].float()), targets, seed)

    def tokens(self, vectors: Tensor, count: int = 1) -> Tensor:
        predicted = self._predicted(vectors)
        return _nearest_tokens(self._model, predicted, self._regression.mean_y, count)

    def scores(self, vectors: Tensor, names: Sequence[str]) -> Tensor:
        of_names = label_embeddings(self._model, word_tokens(self._model, names))
        centered = (of_names - self._regression.mean_y).double()
        return unit_norm(self._predicted(vectors).double()) @ unit_norm(centered).T

    def _predicted(self, vectors: Tensor) -> Tensor:
        """Minus the mean of the training names: [n, d_model]."""
        regression = self._regression
        return (unit_norm(vectors.float()) - regression.mean_x) @ regression.matrix


def _own_lengths(tokens: LabelTokens) -> Tensor:
    """Tokens of each label without the closing quote and the end token."""
    return (tokens.lengths - 2).clamp(min=1)


def _best(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Values and columns of the `count` largest of each row, the first column of equal ones."""
    if count == 1:
        best = values.max(dim=1, keepdim=True)
        return best.values, best.indices
    best = values.topk(min(count, values.shape[1]), dim=1)
    return best.values, best.indices


@torch.no_grad()
def _nearest_tokens(model: FrozenModel, vectors: Tensor, center: Tensor, count: int) -> Tensor:
    """Tokens whose embeddings minus `center` have the highest cosines with a vector: [n, count]."""
    best = torch.empty(len(vectors), 0)
    tokens = torch.empty(len(vectors), 0, dtype=torch.int64)
    units = unit_norm(vectors.float())
    for start, table in _embeddings(model):
        values, rows = _best(units @ unit_norm(table - center).T, count)
        every, ids = torch.cat([best, values], dim=1), torch.cat([tokens, start + rows], dim=1)
        best, kept = _best(every, count)
        tokens = ids.gather(1, kept)
    return tokens


def _embeddings(model: FrozenModel) -> Iterator[tuple[int, Tensor]]:
    """Pieces of the token embeddings that the tokenizer knows, with the first token's id."""
    known = min(model.vocab_size, len(model.tokenizer))
    for start in range(0, known, _TOKENS_AT_ONCE):
        ids = torch.arange(start, min(start + _TOKENS_AT_ONCE, known), device=model.device)
        yield start, model.embedding(ids.unsqueeze(0))[0].float().cpu()
