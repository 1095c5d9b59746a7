"""Scores of a judge's answers: per condition, compared with each other, and as delphi's files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from selfie_adapters.evaluation.baselines import not_measured_line
from selfie_adapters.evaluation.comparing import (
    MeasureColumn,
    Paired,
    adjusted,
    comparison,
    difference_tables,
    paired,
)
from selfie_adapters.evaluation.controls import Condition
from selfie_adapters.evaluation.detection.windows import Window
from selfie_adapters.evaluation.scoring.results import auroc
from selfie_adapters.evaluation.tables import Table, percent
from selfie_adapters.files import write_text
from selfie_adapters.statistics import interval_of, share_of

SCORES = ("balanced_accuracy", "recall", "specificity", "precision")
SCORERS = {"detection": "detection", "fuzzing": "fuzz"}
"""delphi's names of the tasks: folders of scores."""
_COLUMNS = {
    "balanced_accuracy": MeasureColumn("balanced accuracy, points"),
    "auroc": MeasureColumn("AUROC, points"),
}


Windows = Mapping[int, Sequence[Window]]


@dataclass(frozen=True)
class Judged:
    """A condition, the label of each latent under it, and what the judge says of every window.

    labels: a latent without one is not judged under the condition. answers: latent → 1 fits, 0 does
    not, None could not be used. gains: the numbers that the answers are made from, where the judge
    gives them.
    """

    condition: Condition
    labels: Mapping[int, str]
    answers: Mapping[int, Sequence[int | None]]
    gains: Mapping[int, Sequence[float | None]] | None = None

    @classmethod
    def above(
        cls,
        threshold: float,
        condition: Condition,
        labels: Mapping[int, str],
        gains: Mapping[int, Sequence[float | None]],
    ) -> Judged:
        """Windows fit where the gain is above the threshold; where there is none, nobody knows."""
        answers = {
            latent: [None if gain is None else int(gain > threshold) for gain in of]
            for latent, of in gains.items()
        }
        return cls(condition, labels, answers, gains)

    @property
    def name(self) -> str:
        return self.condition.name

    def of(self, windows: Windows) -> Windows:
        """Those of the latents that have a label."""
        return {latent: found for latent, found in windows.items() if latent in self.labels}

    def unusable(self, windows: Windows) -> int:
        answers = (self.answers[latent] for latent in self.of(windows))
        return sum(one is None for found in answers for one in found)


def scores(judged: Judged, windows: Windows, seed: int) -> dict[str, Any]:
    """What results.json states of one condition: intervals over latents.

    An answer that could not be used counts as wrong; precision is over the latents that a "yes" was
    given for, auroc over those with gains.
    """
    of_latents = judged.of(windows)
    found = {latent: _shares(judged.answers[latent], of) for latent, of in of_latents.items()}
    shares: dict[str, list[float]] = {
        name: [one[name] for one in found.values() if name in one] for name in SCORES
    }
    areas = [*_areas(judged, windows).values()]
    return {
        "condition": judged.name,
        "meaning": judged.condition.meaning,
        "latents": len(of_latents),
        **{name: share_of(of) for name, of in shares.items()},
        **({} if judged.gains is None else {"auroc": interval_of(areas, seed)}),
        "unusable_answers": judged.unusable(windows),
    }


def _shares(answers: Sequence[int | None], windows: Sequence[Window]) -> dict[str, float]:
    fits = np.array([one.fits for one in windows])
    yes = np.array([answer == 1 for answer in answers])
    no = np.array([answer == 0 for answer in answers])
    recall, specificity = float(yes[fits].mean()), float(no[~fits].mean())
    found = {
        "balanced_accuracy": (recall + specificity) / 2,
        "recall": recall,
        "specificity": specificity,
    }
    return found | ({"precision": float(fits[yes].mean())} if yes.any() else {})


def _areas(judged: Judged, windows: Windows) -> dict[int, float]:
    """Of each latent the chance that an activating window has a higher gain than another; a half
    where the label is empty."""
    found: dict[int, float] = {}
    for latent, of in judged.of(windows).items() if judged.gains is not None else ():
        fits = np.array([one.fits for one in of])
        gains = np.array([-np.inf if one is None else one for one in (judged.gains or {})[latent]])
        found[latent] = auroc(gains[fits], gains[~fits])
    return found


def compared(
    conditions: Sequence[Judged], pairs: Sequence[tuple[str, str]], windows: Windows, seed: int
) -> list[dict[str, Any]]:
    """Differences of balanced accuracy, and of AUROC where there are gains, paired over latents."""
    accuracy = {
        one.name: {
            latent: _shares(one.answers[latent], of)["balanced_accuracy"]
            for latent, of in one.of(windows).items()
        }
        for one in conditions
    }
    areas = {one.name: _areas(one, windows) for one in conditions if one.gains}

    def minus(first: Mapping[int, float], second: Mapping[int, float]) -> Paired:
        both = [latent for latent in first if latent in second]
        return paired([first[i] for i in both], [second[i] for i in both], seed=seed)

    return adjusted(
        comparison(first, second, measure, minus(of[first], of[second]))
        for measure, of in (("balanced_accuracy", accuracy), ("auroc", areas))
        for first, second in pairs
        if of
    )


def table_rows(conditions: Sequence[Judged], windows: Windows) -> Iterator[dict[str, Any]]:
    """Rows of judgements.jsonl."""
    for one in conditions:
        for latent, found in one.of(windows).items():
            for number, window in enumerate(found):
                row = {
                    "condition": one.name,
                    "latent": latent,
                    "label": one.labels[latent],
                    "window": window.text,
                    "fits": window.fits,
                    "answer": one.answers[latent][number],
                }
                yield row if one.gains is None else row | {"gain": one.gains[latent][number]}


def write_delphi(folder: Path, judged: Judged, windows: Windows, task: str, hookpoint: str) -> Path:
    """The labels and judgements of a condition as delphi keeps them: explanations/ and
    scores/detection/ or scores/fuzz/ with a file per latent. Returns the condition's folder.

    A window is one string in `str_tokens`. What is not known is null.
    """
    out = folder / "delphi" / re.sub(r"[^\w.-]+", "_", judged.name)
    for latent, found in windows.items():
        name = f"{hookpoint}_latent{latent}.txt"
        examples = [
            {
                "str_tokens": [window.text],
                "activations": None,
                "distance": None,
                "activating": window.fits,
                "prediction": None if answer is None else bool(answer),
                "probability": None,
                "correct": answer is not None and bool(answer) == window.fits,
            }
            for window, answer in zip(found, judged.answers[latent], strict=True)
        ]
        label = json.dumps(judged.labels[latent], ensure_ascii=False)
        write_text(out / "explanations" / name, label)
        scores_text = json.dumps(examples, ensure_ascii=False)
        write_text(out / "scores" / SCORERS[task] / name, scores_text)
    return out


def _fewer(conditions: Sequence[Mapping[str, Any]], latents: int) -> str | None:
    """Which conditions are of fewer latents."""
    fewer = [
        f"{one['condition']}: {one['latents']} latents"
        for one in conditions
        if one.get("latents", latents) < latents  # not in results of earlier releases
    ]
    return "; ".join(fewer) or None


def report(results: Mapping[str, Any]) -> Iterator[Table | str]:
    """The tables that `selfie eval detection` prints."""
    counts, conditions = results["counts"], results["conditions"]
    names = [*SCORES, *(["auroc"] if "auroc" in conditions[0] else [])]
    yield Table(
        f"{counts['latents']} latents, {counts['windows']} windows (%, 95 % intervals)",
        ["labels", *(name.replace("_", " ") for name in names), "unusable"],
        [
            [one["condition"], *(percent(one[k]) for k in names), str(one["unusable_answers"])]
            for one in conditions
        ],
        bold={*results["settings"]["labels"]},
        caption=_fewer(conditions, counts["latents"]),
    )
    if calibration := results.get("calibration"):
        yield (
            f"The judge compares likelihoods of labels by {results['judge']}; threshold "
            f"{calibration['threshold']:.2f} nats per token, chosen on {calibration['latents']} "
            f"other latents (balanced accuracy there {calibration['balanced_accuracy']:.0%})."
        )
    elif 2 * max(one["unusable_answers"] for one in conditions) > counts["windows"]:
        yield (
            f"The judge {results['judge']} answers most questions in a form that cannot be used, "
            "so the scores mean nothing. Name a larger chat model (judge: model, url), show it "
            "fewer windows (shown), or compare likelihoods (judge_by: likelihood)."
        )
    # In results of earlier releases all comparisons are of the first measure.
    pairs = ({"measure": SCORES[0], **pair} for pair in results["comparisons"])
    yield from difference_tables(pairs, _COLUMNS)
    yield from not_measured_line(results)
