"""From the labels of one vector to its rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from selfie_adapters.config.labelling import LabelSettings
from selfie_adapters.labelling.choosing import Judgement, Ranked, rank_labels
from selfie_adapters.labelling.decomposition.concepts import Concept
from selfie_adapters.labelling.label import Label
from selfie_adapters.labelling.rows import LabelRow, Row
from selfie_adapters.words import plain

LabelJudge = Callable[[Label, float], Judgement]
"""Called with a label and its agreement, returns whether it is shown (`choosing.judge`)."""


def ranked_rows(
    labels: Sequence[Label],
    settings: LabelSettings,
    name: Mapping[str, Any],
    given: Sequence[str],
    judged: LabelJudge | None,
) -> list[Row]:
    """A row for each label of a vector, or for the best.

    name: what identifies the vector. given: its own labels. judged: None where nothing is ever
    withheld.
    """
    ranked = rank_labels(labels)
    if settings.best_of is None:  # all labels, in the order they were sampled
        order = {id(label): i for i, label in enumerate(labels)}
        ranked.sort(key=lambda one: order[id(one.label)])
    elif not settings.explain:
        ranked = ranked[:1]
    rows = []
    for one in ranked:
        verdict = None if judged is None else judged(one.label, one.agreement)
        rank = _rank(one) if len(labels) > 1 else {}
        rows.append(_row(one.label, name, given, verdict, rank))
    return rows


def concept_rows(
    concepts: Sequence[Concept],
    name: Mapping[str, Any],
    given: Sequence[str],
) -> list[Row]:
    """A row for each concept of a vector, the loudest first; arguments as in `ranked_rows`."""
    rows = []
    for number, one in enumerate(concepts, start=1):
        more = {"concept_number": number, "explained": round(one.explained, 4)}
        rows.append(_row(one.label, name, given, one.verdict, more))
    return rows


def _rank(one: Ranked) -> dict[str, Any]:
    margin = None if one.margin is None else round(one.margin, 4)
    return {"rank": one.rank, "agreement": round(one.agreement, 4), "margin": margin}


def _row(
    label: Label,
    name: Mapping[str, Any],
    given: Sequence[str],
    verdict: Judgement | None,
    more: Mapping[str, Any],
) -> LabelRow:
    row: dict[str, Any] = {
        "label": label.text,
        "raw": label.raw,
        "scale": label.scale,
        "sample": label.sample,
        "seed": label.seed,
        "log_prob": round(label.log_prob, 4),
        "zero_log_prob": round(label.zero_log_prob, 4),
        "gain": round(label.gain, 4),
        "score": round(label.gain, 4),
        "tokens": label.tokens,
        "ended": label.ended,
        **more,
    }
    if verdict is not None:
        row["concept"] = verdict.withheld is None
        if verdict.confidence is not None:
            row["confidence"] = round(verdict.confidence, 4)
        if verdict.withheld is not None:
            row["withheld"] = verdict.withheld
    if given:
        row["given"] = given[0]
        row["equal"] = plain(label.text) in map(plain, given)
    return LabelRow(**name, **row)
