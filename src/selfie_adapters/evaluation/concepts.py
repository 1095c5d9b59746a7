"""Does the adapter name held-out concepts, and better than what knows nothing about them?

Protocol: each concept has one vector and one name. Loss: cross-entropy of the name given the
vector, nats per token, a mean over concepts. Retrieval: concepts are taken in groups; each vector
is to pick its own name among the group's, by likelihood and by gain over the zero vector.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selfie_adapters.adapters import Adapter
from selfie_adapters.dataset.controls import random_vectors, shuffle_order
from selfie_adapters.evaluation.controls import UNTRAINED_SCALES, untrained_adapter
from selfie_adapters.evaluation.recall import hits_at
from selfie_adapters.evaluation.statistics import Interval, bootstrap_mean
from selfie_adapters.inference.label_batches import checked_labels
from selfie_adapters.labelling import CandidateScores, score_candidates
from selfie_adapters.model import BoundPrompt, FrozenModel
from selfie_adapters.training import Objective


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
    """soft_tokens: [n, d_model], what each vector becomes; zero_token: [d_model], the zero's."""

    name: str
    meaning: str
    soft_tokens: Tensor
    zero_token: Tensor


@torch.no_grad()
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
    these very concepts, which favours that control. Shuffling stays within a retrieval group.
    """
    objective = Objective(model, prompt)
    tokens = checked_labels(model, prompt, names)
    everyone = torch.arange(len(names))

    def losses(soft: Tensor) -> np.ndarray:
        return objective.all_losses(soft, tokens, everyone).per_example.cpu().numpy()

    used = group_size * retrieval_groups
    groups = [slice(start, start + group_size) for start in range(0, used, group_size)]
    order = torch.arange(len(names))  # shuffled: concept i gets the vector of concept order[i]
    for group in [*groups, slice(used, None)]:
        if len(order[group]) > 1:
            order[group] = order[group][shuffle_order(len(order[group]), seed)]

    progress("untrained scales")
    plain = {scale: untrained_adapter(model.d_model, scale) for scale in UNTRAINED_SCALES}
    tried = {scale: float(losses(a(vectors)).mean()) for scale, a in plain.items()}
    best = min(tried, key=lambda scale: tried[scale])
    others = ", ".join(f"{scale:g}: {loss:.2f}" for scale, loss in tried.items())

    trained = adapter(vectors)
    zero = adapter(torch.zeros_like(vectors))
    untrained_zero = plain[best](torch.zeros_like(vectors[0]))
    conditions = [
        _Condition("trained", "the trained adapter", trained, zero[0]),
        _Condition("zero vector", "the trained adapter's bias alone", zero, zero[0]),
        _Condition(
            "shuffled", "the trained adapter on another concept's vector", trained[order], zero[0]
        ),
        _Condition(
            "random",
            "the trained adapter on random directions",
            adapter(random_vectors(vectors, seed)),
            zero[0],
        ),
        _Condition(
            "untrained",
            f"unit vector × {best:g}, the best of the scales (loss at {others})",
            plain[best](vectors),
            untrained_zero,
        ),
    ]
    results: list[ConditionResult] = []
    trained_scores: list[CandidateScores] = []
    for condition in conditions:
        progress(condition.name)
        hits: dict[tuple[str, int], list[np.ndarray]] = {}
        for number, group in enumerate(groups):
            at_zero = score_candidates(
                model, prompt, condition.zero_token.unsqueeze(0), names[group]
            )
            if condition.name == "zero vector":  # every row is the same one
                same = at_zero.log_probs.expand(group_size, -1)
                scores = CandidateScores(same, at_zero.tokens)
            elif condition.name == "shuffled":  # the trained rows, in another order
                moved = order[group] - group.start
                known = trained_scores[number]
                scores = CandidateScores(known.log_probs[moved], known.tokens)
            else:
                soft = condition.soft_tokens[group]
                scores = score_candidates(model, prompt, soft, names[group])
            if condition.name == "trained":
                trained_scores.append(scores)
            for k in (1, 5):
                hits.setdefault(("likelihood", k), []).append(hits_at(scores.per_token(), k))
                hits.setdefault(("gain", k), []).append(hits_at(scores.gain(at_zero), k))
        recall = {key: bootstrap_mean(np.concatenate(parts), seed) for key, parts in hits.items()}
        results.append(
            ConditionResult(
                condition.name,
                condition.meaning,
                bootstrap_mean(losses(condition.soft_tokens), seed),
                recall["likelihood", 1],
                recall["likelihood", 5],
                recall["gain", 1],
                recall["gain", 5],
            )
        )
    return results
