"""Does the adapter name held-out concepts, and better than what knows nothing about them?

Protocol: each concept has one vector and one name. Loss: cross-entropy of the name given the
vector, nats a token, a mean over concepts. Retrieval: concepts are taken in groups; each vector is
to pick its own name among the group's, by likelihood and by gain over the zero vector.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selfie_adapters.adapters import Adapter
from selfie_adapters.evaluation.controls import (
    UNTRAINED_SCALES,
    random_vectors,
    shuffled_vectors,
    untrained_adapter,
    zero_vectors,
)
from selfie_adapters.evaluation.retrieval import hits_at
from selfie_adapters.evaluation.statistics import Interval, bootstrap_mean
from selfie_adapters.labelling import CandidateScores, score_candidates
from selfie_adapters.model import BoundPrompt, FrozenModel
from selfie_adapters.training import Objective
from selfie_adapters.training.batches import tokenise_labels


@dataclass(frozen=True)
class ConditionResult:
    """One row of the table: held-out loss, and recall at 1 and 5 by likelihood and by gain."""

    condition: str
    meaning: str
    loss: Interval
    likelihood_at_1: Interval
    likelihood_at_5: Interval
    gain_at_1: Interval
    gain_at_5: Interval

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def beaten_by(self, trained: ConditionResult) -> bool:
        """Whether `trained` is better beyond the intervals in loss and in recall at 1 by gain."""
        return self.loss.above(trained.loss) and trained.gain_at_1.above(self.gain_at_1)


@dataclass(frozen=True)
class _Condition:
    name: str
    meaning: str
    soft_tokens: Tensor  # [n, d_model]
    zero_token: Tensor  # [d_model], what the zero vector becomes


def compare_with_controls(
    model: FrozenModel,
    prompt: BoundPrompt,
    adapter: Adapter,
    vectors: Tensor,
    names: Sequence[str],
    group_size: int,
    retrieval_groups: int,
    seed: int = 0,
    progress: Callable[[str], None] = lambda _doing: None,
) -> list[ConditionResult]:
    """The trained adapter and its controls on held-out concepts, the trained one first.

    vectors: [n, d_model], raw; names: n texts. Retrieval uses the first
    group_size · retrieval_groups concepts. The untrained scale is the one with the lowest loss on
    these very concepts, which favours that control.
    """
    objective = Objective(model, prompt)
    tokens = tokenise_labels(model.tokenizer, names, prompt.end_id)
    everyone = torch.arange(len(names))

    @torch.no_grad()
    def losses(soft: Tensor) -> np.ndarray:
        return objective.all_losses(soft, tokens, everyone).per_example.cpu().numpy()

    used = group_size * retrieval_groups
    groups = [slice(start, start + group_size) for start in range(0, used, group_size)]
    shuffled = vectors.clone()
    for group in [*groups, slice(used, None)]:  # within a group, so that retrieval stays possible
        if len(vectors[group]) > 1:
            shuffled[group] = shuffled_vectors(vectors[group], seed)

    progress("untrained scales")
    sweep = {scale: untrained_adapter(model.d_model, scale) for scale in UNTRAINED_SCALES}
    with torch.no_grad():
        tried = {
            scale: float(losses(plain.transform(vectors)).mean()) for scale, plain in sweep.items()
        }
        best = min(tried, key=lambda scale: tried[scale])
        zero = adapter.transform(zero_vectors(vectors))
        others = ", ".join(f"{scale:g}: {loss:.2f}" for scale, loss in tried.items())
        conditions = [
            _Condition("trained", "the trained adapter", adapter.transform(vectors), zero[0]),
            _Condition("zero vector", "the trained adapter's bias alone", zero, zero[0]),
            _Condition(
                "shuffled",
                "the trained adapter on another concept's vector",
                adapter.transform(shuffled),
                zero[0],
            ),
            _Condition(
                "random",
                "the trained adapter on random directions",
                adapter.transform(random_vectors(vectors, seed)),
                zero[0],
            ),
            _Condition(
                "untrained",
                f"unit vector × {best:g}, the best of the scales (loss at {others})",
                sweep[best].transform(vectors),
                sweep[best].transform(zero_vectors(vectors[:1]))[0],
            ),
        ]
    results = []
    for condition in conditions:
        progress(condition.name)
        by_likelihood, by_gain = [], []
        for group in groups:
            scores, at_zero = _scores(model, prompt, condition, names[group], group)
            by_likelihood.append(scores.per_token())
            by_gain.append(scores.gain(at_zero))
        recall = [
            bootstrap_mean(np.concatenate([hits_at(square, k) for square in squares]), seed)
            for squares in (by_likelihood, by_gain)
            for k in (1, 5)
        ]
        loss = bootstrap_mean(losses(condition.soft_tokens), seed)
        results.append(ConditionResult(condition.name, condition.meaning, loss, *recall))
    return results


def _scores(
    model: FrozenModel,
    prompt: BoundPrompt,
    condition: _Condition,
    names: Sequence[str],
    group: slice,
) -> tuple[CandidateScores, CandidateScores]:
    """Scores of every name for every soft token of the group, and for the zero vector's token."""
    at_zero = score_candidates(model, prompt, condition.zero_token.unsqueeze(0), names)
    soft = condition.soft_tokens[group]
    if bool((soft == condition.zero_token).all()):  # the zero vector itself: one row says it all
        same = at_zero.log_probs.expand(len(soft), -1)
        return CandidateScores(same, at_zero.tokens), at_zero
    return score_candidates(model, prompt, soft, names), at_zero
