"""The detection protocol: a judge who reads a label tells which windows activate the latent.

Detection scoring as in EleutherAI's delphi (https://github.com/EleutherAI/delphi): a chat model is
shown a label and windows of text, of which half activate the latent, and answers for each whether
the label fits. Fuzzing: all windows activate it, and in half of them the marked tokens are others
than those that do. Windows and questions are the same for every file of labels and for labels of
other latents (shuffled), so that differences are paired.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from typing import Any

import msgspec
import numpy as np

from selfie_adapters.chat import ChatRequest, Message
from selfie_adapters.config.evaluation.detection import DetectionSettings
from selfie_adapters.dataset.controls import shuffle_order
from selfie_adapters.errors import DataError
from selfie_adapters.evaluation.base import Protocol, Table, percent
from selfie_adapters.evaluation.controls import Condition
from selfie_adapters.evaluation.detection.windows import (
    Window,
    marked_windows,
    plain_windows,
    read_corpus,
    read_texts,
    sampled_windows,
)
from selfie_adapters.evaluation.folder import digest_of, file_hashes
from selfie_adapters.evaluation.retrieval.targets import sample
from selfie_adapters.evaluation.scoring.maximum_activations import check_width
from selfie_adapters.extras import require_extra
from selfie_adapters.files.json_lines import write_jsonl
from selfie_adapters.inference.sampling import row_seed
from selfie_adapters.sources.labels.files import read_label_file
from selfie_adapters.sources.sae.encoder import open_encoder
from selfie_adapters.statistics import PairedTable, wilson

TABLE = "judgements.jsonl"
QUESTIONS = {
    "detection": "For each passage, decide whether it contains what the description states.",
    "fuzzing": "In each passage some words are marked with << and >>. For each, decide whether "
    "the marked words are what the description states.",
}
PROMPT = """\
A description of a feature, and numbered passages. {task} Answer with a list of as many \
numbers as there are passages: 1 for yes, 0 for no, such as [0, 1, 1].

Description: {label}

{passages}"""


class DetectionRow(msgspec.Struct):
    """Windows of a latent ("windows/latent"), or the judge's answers about them under a condition
    ("condition/latent"): 1 fits, 0 does not, null where the answer could not be used."""

    windows: list[tuple[str, bool]] | None = None
    answers: list[int | None] | None = None


class Detection(Protocol[DetectionSettings]):
    """It also writes judgements.jsonl: one row per latent, window and condition."""

    settings_class = DetectionSettings
    row = DetectionRow
    free = ("batch_size",)

    def check(self) -> None:
        require_extra("sae", "selfie eval detection")

    def inputs(self) -> dict[str, str]:
        """Raises DataError for latents without a label, and for fewer than two."""
        settings = self.settings
        self._texts = read_texts(settings.texts)
        files = {name: read_label_file(path).labels for name, path in settings.labels.items()}
        everywhere = sorted(set.intersection(*(set(found) for found in files.values())))
        wanted = everywhere if settings.latents is None else sorted({*settings.latents})
        for name, found in files.items():
            if without := [latent for latent in wanted if latent not in found]:
                raise DataError(
                    f"latent {without[0]} has no label in {settings.labels[name]}. Remove it from "
                    "latents."
                )
        self._latents: list[int] = sample(wanted, settings.limit, settings.seed)
        if len(self._latents) < 2:
            raise DataError(
                f"{', '.join(settings.labels.values())}: {len(self._latents)} latents with a label "
                "in every file; at least 2 are needed, so that labels can be shuffled."
            )
        self._labels = {
            name: {latent: found[latent][0] for latent in self._latents}
            for name, found in files.items()
        }
        self._encoder = open_encoder(
            settings.sae, self._latents, settings.force_sae, self.model.device
        )
        check_width(self.model, self._encoder)
        given = [sorted(labels.items()) for labels in self._labels.values()]
        return {
            **file_hashes({"texts": settings.texts}),
            "labels_digest": digest_of(given),
            "sae": self._encoder.digest(),
        }

    def measure(self) -> dict[str, Any]:
        """Raises DataError if fewer than two latents have windows of both kinds."""
        settings = self.settings
        windows = self._windows()
        judged = {latent: found for latent, found in windows.items() if found}
        if len(judged) < 2:
            raise DataError(
                f"{settings.texts}: {len(judged)} of {len(windows)} latents have windows that "
                "activate them and windows that do not; at least 2 are needed. Give more "
                "documents, or another threshold."
            )
        conditions = list(self._conditions([*judged]))
        answers = {one.name: self._judge(one, labels, judged) for one, labels in conditions}
        write_jsonl(self.folder.folder / TABLE, _table(conditions, judged, answers))
        units = np.array([latent for latent, found in judged.items() for _ in found])
        right = np.array([one.fits for found in judged.values() for one in found])
        correct = {
            name: np.array(
                [a is not None and bool(a) == fits for a, fits in zip(of, right, strict=True)]
            )
            for name, of in answers.items()
        }
        pairs = [(name, f"{name}: shuffled") for name in settings.labels]
        pairs += combinations(settings.labels, 2)
        return {
            "counts": {
                "texts": len(self._texts),
                "latents": len(judged),
                "latents_without_windows": len(windows) - len(judged),
                "windows": len(right),
            },
            "interval": "95 %; shares: Wilson, over latents; differences: paired over latents, "
            "Newcombe's method 10",
            "judge": self._judge_model.name,
            "conditions": [
                {
                    "condition": one.name,
                    "meaning": one.meaning,
                    **_scores(answers[one.name], right, units),
                }
                for one, _ in conditions
            ],
            "comparisons": [
                {
                    "first": first,
                    "second": second,
                    "difference": asdict(
                        PairedTable.of(correct[first], correct[second], units).difference()
                    ),
                }
                for first, second in pairs
            ],
        }

    def _windows(self) -> dict[int, list[Window]]:
        """The windows of each latent, in the order in which they are shown."""
        rows, settings = self.folder.rows, self.settings
        missing = [latent for latent in self._latents if f"windows/{latent}" not in rows]
        if missing:
            corpus = read_corpus(self.model, self._encoder, self._texts, settings, self.progress)
            for latent in missing:
                column = self._latents.index(latent)
                active, silent = sampled_windows(
                    corpus, column, settings.windows, settings.threshold, settings.seed
                )
                if settings.task == "fuzzing":
                    found = marked_windows(
                        self.model, self._encoder, corpus, active, column, settings
                    )
                else:
                    found = plain_windows(self.model, corpus, active, silent)
                generator = np.random.default_rng(row_seed(settings.seed, "order", latent))
                shown = [found[i] for i in generator.permutation(len(found))]
                row = {"windows": [[one.text, one.fits] for one in shown]}
                self.folder.add(f"windows/{latent}", row)
        return {
            latent: [Window(*one) for one in rows[f"windows/{latent}"]["windows"]]
            for latent in self._latents
        }

    def _conditions(self, latents: list[int]) -> Iterator[tuple[Condition, dict[int, str]]]:
        """Every condition with the label that each latent has under it."""
        order: list[int] = shuffle_order(len(latents), self.settings.seed).tolist()
        for name, labels in self._labels.items():
            yield Condition(name, f"labels of {self.settings.labels[name]}"), labels
        for name, labels in self._labels.items():
            meaning = "each latent has another one's label, on the same windows"
            moved = {one: labels[latents[i]] for one, i in zip(latents, order, strict=True)}
            yield Condition(f"{name}: shuffled", meaning, shuffles_labels=True), moved

    def _judge(
        self, condition: Condition, labels: Mapping[int, str], windows: Mapping[int, list[Window]]
    ) -> list[int | None]:
        """The judge's answers about all windows, latent by latent."""
        settings, answers = self.settings, []
        self._judge_model = self.chat(settings.judge, self.model)
        for done, (latent, found) in enumerate(windows.items()):
            self.progress(condition.name, done, len(windows))

            def make(label: str = labels[latent], found: list[Window] = found) -> list[int | None]:
                parts = [
                    found[i : i + settings.shown] for i in range(0, len(found), settings.shown)
                ]
                requests = [self._request(label, part) for part in parts]
                texts = self._judge_model.answer(requests)
                pairs = zip(texts, parts, strict=True)
                return [one for text, part in pairs for one in read_answer(text, len(part))]

            key = f"{condition.name}/{latent}"
            answers += self.folder.values(key, "answers", len(found), make)
        self.progress(condition.name, len(windows), len(windows))
        return answers

    def _request(self, label: str, windows: Sequence[Window]) -> ChatRequest:
        one_line = (" ".join(window.text.split()) for window in windows)
        passages = "\n".join(f"{number}. {text}" for number, text in enumerate(one_line, start=1))
        task = QUESTIONS[self.settings.task]
        asked = PROMPT.format(task=task, label=label, passages=passages)
        return ChatRequest(
            (Message("user", asked),),
            max_tokens=4 * len(windows) + 8,
            temperature=self.settings.temperature,
            seed=row_seed(self.settings.seed, label, passages),
            begun="[",
        )

    @classmethod
    def report(cls, results: Mapping[str, Any]) -> Iterator[Table | str]:
        counts = results["counts"]
        yield Table(
            f"{counts['latents']} latents, {counts['windows']} windows (%, 95 % intervals)",
            ["labels", "balanced accuracy", "recall", "specificity", "precision", "unusable"],
            [
                [
                    one["condition"],
                    *(percent(one[k]) for k in SCORES),
                    str(one["unusable_answers"]),
                ]
                for one in results["conditions"]
            ],
            bold={*results["settings"]["labels"]},
        )
        unusable = max(one["unusable_answers"] for one in results["conditions"])
        if 2 * unusable > counts["windows"]:
            yield (
                f"The judge {results['judge']} answers most questions in a form that cannot be "
                "used, so the scores mean nothing. Name a larger chat model (judge: model, url), "
                "or show it fewer windows (shown)."
            )
        for pair in results["comparisons"]:
            points = percent(pair["difference"], 1, "+")
            yield f"{pair['first']} minus {pair['second']}: {points} points of balanced accuracy"


SCORES = ("balanced_accuracy", "recall", "specificity", "precision")


def read_answer(text: str, count: int) -> list[int | None]:
    """The answers in a list of 0 and 1 that was begun with "["; all None where it is none of
    `count` numbers."""
    inside = text.partition("]")[0].rpartition("[")[2]
    found = re.findall(r"(?<![\w.])[01](?![\w.])", inside)
    if len(found) != count or re.search(r"[^\s01,]", inside):
        return [None] * count
    return [int(one) for one in found]


def _scores(answers: Sequence[int | None], right: np.ndarray, units: np.ndarray) -> dict[str, Any]:
    """Shares over latents, each the mean over its windows. An answer that could not be used counts
    as wrong; precision is over the latents that a "yes" was given for."""
    yes = np.array([answer == 1 for answer in answers])
    no = np.array([answer == 0 for answer in answers])
    correct = np.where(right, yes, no)
    half = {kind: _by_unit(correct[right == kind], units[right == kind]) for kind in (True, False)}
    both = [(half[True][one] + half[False][one]) / 2 for one in half[True]]
    shares = {
        "balanced_accuracy": both,
        "recall": [*half[True].values()],
        "specificity": [*half[False].values()],
        "precision": [*_by_unit(right[yes], units[yes]).values()],
    }
    return {
        **{
            name: asdict(wilson(sum(found), len(found))) if found else None
            for name, found in shares.items()
        },
        "unusable_answers": sum(answer is None for answer in answers),
    }


def _by_unit(outcomes: np.ndarray, units: np.ndarray) -> dict[int, float]:
    return {int(one): float(outcomes[units == one].mean()) for one in np.unique(units)}


def _table(
    conditions: Sequence[tuple[Condition, Mapping[int, str]]],
    windows: Mapping[int, Sequence[Window]],
    answers: Mapping[str, Sequence[int | None]],
) -> Iterator[dict[str, Any]]:
    for condition, labels in conditions:
        given = iter(answers[condition.name])
        for latent, found in windows.items():
            for one in found:
                yield {
                    "condition": condition.name,
                    "latent": latent,
                    "label": labels[latent],
                    "window": one.text,
                    "fits": one.fits,
                    "answer": next(given),
                }
