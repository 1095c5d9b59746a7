"""From measured conversations to scores with intervals (formulas: docs/metrics.md).

The unit of every interval is a latent. A label is a group of conversations; those with an error are
excluded from its score, an empty label scores 0. The negatives of a latent are the same in every
condition.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from selfie_adapters.evaluation.comparing import adjusted, comparison, paired
from selfie_adapters.evaluation.folder import EvaluationRow
from selfie_adapters.statistics import interval_of, share_interval, share_of

Where = Literal["anywhere", "content"]
COMPARED = ("best_of_1", "balanced_accuracy", "auroc")
"""What conditions are compared by, latent by latent."""
_Group = list[np.ndarray]  # of one conversation: maxima at the latent, at the other one


@dataclass(frozen=True)
class _LatentHits:
    """The groups of one latent in one condition; None for a group whose writing went wrong."""

    groups: list[_Group | None]
    scales: list[float | None]
    pieces: np.ndarray  # [conversations, columns], all groups together


def summarize(
    rows: Mapping[str, EvaluationRow],
    conditions: Sequence[str],
    latents: Sequence[int],
    others: Sequence[int] = (),
    negatives: Sequence[EvaluationRow] = (),
    thresholds: Sequence[float] = (0.0,),
    seed: int = 0,
) -> dict[str, Any]:
    """Scores by condition: {condition: {"published": …, "content": …, "counts": …}}.

    rows: as `score_labels` leaves them, under "condition:latent"; a latent without labels in a
    condition is no part of its scores. others: where each latent's
    conversations were measured as well (`others_of`); with them and a condition "trained",
    "shuffled" is added: its conversations at another latent than their own. negatives: as
    `negative_conversations` gives them; those with an error are excluded.
    """
    sound = [one["content"] for one in negatives if "error" not in one]
    beside = np.array(sound).reshape(len(sound), len(latents))
    of = {
        condition: [rows[f"{condition}:{latent}"] for latent in latents] for condition in conditions
    }
    results = {}
    for condition, measured in of.items():
        some = [place for place, row in enumerate(measured) if row["labels"]]
        own = [measured[place] for place in some]
        found = _condition(own, others, beside[:, some], thresholds, seed, 0)
        for name, values in found["per_latent"].items():
            by_place = dict(zip(some, values, strict=True))
            found["per_latent"][name] = [by_place.get(place) for place in range(len(latents))]
        results[condition] = found
        if condition == "trained" and others:
            results["shuffled"] = _condition(measured, others, beside, thresholds, seed, 1)
    return results


def compare_conditions(
    conditions: Mapping[str, Mapping[str, Any]], seed: int = 0
) -> list[dict[str, Any]]:
    """The trained labels minus those of every other condition, latent by latent, at the first
    threshold; where there are none, the first condition. conditions: as `summarize` gives them."""
    first = "trained" if "trained" in conditions else next(iter(conditions), None)
    if first is None:
        return []
    own = conditions[first]["per_latent"]
    found = []
    for other, one in conditions.items():
        for measure in COMPARED if other != first else ():
            pairs = zip(own[measure], one["per_latent"][measure], strict=True)
            both = [(a, b) for a, b in pairs if a is not None and b is not None]
            if both:
                mine, its = np.array(both, dtype=np.float64).T
                found.append(comparison(first, other, measure, paired(mine, its, seed=seed)))
    return adjusted(found)


def _condition(
    rows: Sequence[EvaluationRow],
    others: Sequence[int],
    negatives: np.ndarray,
    thresholds: Sequence[float],
    seed: int,
    column: int,
) -> dict[str, Any]:
    """column 0: each latent with its own conversations; 1: with those it is the other one of."""
    places = range(len(rows))
    owner = [others.index(place) if column else place for place in places]
    result: dict[str, Any] = {}

    anywhere = [_measured(row, "anywhere", 1 + bool(others)) for row in rows]
    best = [_best(_scores(anywhere[owner[place]], column, 0.0)) for place in places]
    result["published"] = {"best_of_n": asdict(share_interval(best))}

    content = [_measured(row, "content", 1 + bool(others)) for row in rows]
    result["content"], result["per_latent"] = _content(
        content, owner, negatives, thresholds, seed, column
    )
    conversations = [c for row in rows for label in row["labels"] for c in label["conversations"]]
    result["counts"] = {
        "latents": len(rows),
        "labels": sum(len(row["labels"]) for row in rows),
        "empty_labels": sum(not label["text"] for row in rows for label in row["labels"]),
        "conversations": len(conversations),
        "conversations_with_error": sum("error" in c for c in conversations),
    }
    return result


def _content(
    measured: Sequence[_LatentHits],
    owner: Sequence[int],
    negatives: np.ndarray,
    thresholds: Sequence[float],
    seed: int,
    column: int,
) -> tuple[dict[str, Any], dict[str, list[float | None]]]:
    """The scores, and at the first threshold each latent's values of `COMPARED`.

    negatives: maximum activations, [conversations, latents].
    """
    per_latent: dict[str, list[float | None]] = {}
    own = [measured[place] for place in owner]
    positives = [one.pieces[:, column] for one in own]
    at_thresholds = []
    for threshold in thresholds:
        scores = [_scores(one, column, threshold) for one in own]
        one_of = [_mean(of) for of in scores]
        held_out = [_held_out(one, column, threshold) for one in own]
        entry: dict[str, Any] = {
            "threshold": threshold,
            "best_of_1": asdict(share_interval(one_of)),
            "best_of_n": asdict(share_interval([_best(of) for of in scores])),
            "best_of_n_held_out": asdict(share_interval(held_out)),
        }
        false = [float((of > threshold).mean()) if of.size else None for of in negatives.T]
        balanced = _balanced(one_of, false)
        if threshold == thresholds[0]:
            per_latent = {"best_of_1": [*one_of], "balanced_accuracy": balanced}
        entry["false_positive_rate"] = share_of(false)
        entry["balanced_accuracy"] = interval_of(balanced, seed)
        entry["balanced_accuracy_held_out"] = interval_of(_balanced(held_out, false), seed)
        at_thresholds.append(entry)
    pairs = zip(positives, negatives.T, strict=True)
    areas = [auroc(yes, no) if yes.size and no.size else None for yes, no in pairs]
    content = {
        "thresholds": at_thresholds,
        "auroc": interval_of(areas, seed),
        "by_scale": _by_scale(own, column, thresholds[0]),
    }
    return content, {**per_latent, "auroc": areas}


def _by_scale(own: Sequence[_LatentHits], column: int, threshold: float) -> dict[str, Any]:
    found: dict[float, list[float]] = {}
    for one in own:
        for scale, score in zip(one.scales, _scores(one, column, threshold), strict=True):
            if scale is not None and score is not None:
                found.setdefault(scale, []).append(score)
    return {f"{scale:g}": asdict(share_interval(of)) for scale, of in sorted(found.items())}


def _balanced(hits: Sequence[float], false: Sequence[float | None]) -> list[float | None]:
    """(hit rate + 1 − false positive rate) / 2 of each latent."""
    return [None if f is None else (t + 1 - f) / 2 for t, f in zip(hits, false, strict=True)]


def auroc(positives: np.ndarray, negatives: np.ndarray) -> float:
    """Chance that a positive is above a negative, equal ones counting half."""
    above = (positives[:, None] > negatives).mean()
    equal = (positives[:, None] == negatives).mean()
    return float(above + equal / 2)


def _measured(row: EvaluationRow, where: Where, columns: int) -> _LatentHits:
    groups: list[_Group | None] = []
    for label in row["labels"]:
        sound = [np.array(c[where]) for c in label["conversations"] if "error" not in c]
        groups.append(sound if sound or not label["text"] else None)
    every = [piece for group in groups for piece in group or ()]
    return _LatentHits(
        groups,
        [label["scale"] for label in row["labels"]],
        np.array(every).reshape(len(every), columns),
    )


def _scores(one: _LatentHits, column: int, threshold: float) -> list[float | None]:
    """Share of hits of each label; 0 for an empty one, None where all conversations went wrong."""
    return [None if group is None else _share(group, column, threshold) for group in one.groups]


def _share(group: _Group, column: int, threshold: float) -> float:
    return sum(piece[column] > threshold for piece in group) / len(group) if group else 0.0


def _held_out(one: _LatentHits, column: int, threshold: float) -> float:
    """The best label, chosen on every other conversation and scored on the rest; both ways."""
    groups = [group for group in one.groups if group is not None]
    if not groups:
        return 0.0
    parts = [[group[start::2] for group in groups] for start in (0, 1)]
    result = 0.0
    for chosen_on, scored_on in (parts, parts[::-1]):
        scores = [_share(group, column, threshold) for group in chosen_on]
        result += _share(scored_on[scores.index(max(scores))], column, threshold) / 2
    return result


def _best(scores: Sequence[float | None]) -> float:
    return max((score for score in scores if score is not None), default=0.0)


def _mean(scores: Sequence[float | None]) -> float:
    found = [score for score in scores if score is not None]
    return sum(found) / len(found) if found else 0.0
