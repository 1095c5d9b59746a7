"""The detection protocol: a judge who reads a label tells which windows activate the latent.

Detection scoring as in EleutherAI's delphi (https://github.com/EleutherAI/delphi): a judge is shown
a label and windows of text, of which half activate the latent, and says for each whether the label
fits. Fuzzing: all windows activate it, and in half of them the marked tokens are others than those
that do. Windows and questions are the same for every file of labels, for labels of other latents
(shuffled), and for labels that need no adapter: the logit lens of the decoder row, and the tokens
that activate the latent most in windows that the judge does not see. So differences are paired.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import msgspec
import numpy as np

from selfie_adapters.config.evaluation.detection import RESERVED, DetectionSettings
from selfie_adapters.dataset.controls import shuffle_order
from selfie_adapters.errors import ConfigError, DataError
from selfie_adapters.evaluation.base import Protocol
from selfie_adapters.evaluation.comparing import METHOD
from selfie_adapters.evaluation.control_labels import WORDS, missing_words, words_meaning
from selfie_adapters.evaluation.controls import Condition
from selfie_adapters.evaluation.detection.judging import (
    LikelihoodJudge,
    best_threshold,
    read_answer,
    request,
)
from selfie_adapters.evaluation.detection.labels import read_labels
from selfie_adapters.evaluation.detection.results import (
    Judged,
    Windows,
    compared,
    report,
    scores,
    table_rows,
    write_delphi,
)
from selfie_adapters.evaluation.detection.windows import (
    Window,
    marked_windows,
    plain_windows,
    read_corpus,
    read_texts,
    sampled_windows,
    top_tokens,
)
from selfie_adapters.evaluation.folder import file_hashes
from selfie_adapters.evaluation.retrieval.targets import sample
from selfie_adapters.evaluation.same_start import SAME_START
from selfie_adapters.evaluation.scoring.maximum_activations import check_width
from selfie_adapters.evaluation.tables import Table
from selfie_adapters.extras import require_extra
from selfie_adapters.files.json_lines import write_jsonl
from selfie_adapters.inference.generate import row_seed
from selfie_adapters.model import load_model
from selfie_adapters.model.fingerprint import weights_digest
from selfie_adapters.sources.sae.encoder import open_encoder

TABLE = "judgements.jsonl"
TOKENS = RESERVED[-1]


class DetectionRow(msgspec.Struct):
    """Windows of a latent ("windows/latent") with its top tokens, or the judge's answers about them
    under a condition ("condition/latent"): 1 fits, 0 does not, null where the answer could not be
    used; or a gain for each, by the judge of likelihoods."""

    windows: list[tuple[str, bool]] | None = None
    top_tokens: str | None = None
    answers: list[int | None] | None = None
    gains: list[list[float | None]] | None = None


class Detection(Protocol[DetectionSettings]):
    """It also writes judgements.jsonl, one row per latent, window and condition, and delphi/."""

    settings_class = DetectionSettings
    row = DetectionRow
    free = ("batch_size",)

    def check(self) -> None:
        require_extra("sae", "selfie eval detection")

    def inputs(self) -> dict[str, str]:
        """Raises DataError as `read_labels` does."""
        settings = self.settings
        self._texts = read_texts(settings.texts)
        self._given = read_labels(settings)
        self._encoder = open_encoder(
            settings.sae, self._given.everyone, settings.force_sae, self.model.device
        )
        check_width(self.model, self._encoder)
        hashes = {**file_hashes({"texts": settings.texts}), **self._given.digests()}
        return hashes | {"sae": self._encoder.digest()}

    def measure(self) -> dict[str, Any]:
        """Raises DataError if fewer than two latents have windows of both kinds."""
        settings = self.settings
        windows = self._windows()
        latents = self._given.latents
        judged = {latent: windows[latent] for latent in latents if windows[latent]}
        if len(judged) < 2:
            raise DataError(
                f"{settings.texts}: {len(judged)} of {len(latents)} latents have windows "
                "that activate them and windows that do not; at least 2 are needed. Give more "
                "documents, or another threshold."
            )
        conditions = [*self._conditions([*judged])]
        if settings.judge_by == "answers":
            found, about = self._answered(conditions, judged)
        else:
            found, about = self._by_likelihood(conditions, judged, windows)
        write_jsonl(self.folder.folder / TABLE, table_rows(found, judged))
        hookpoint = f"layers.{self._encoder.layer}"
        for one in found:
            if not one.condition.shuffles_labels:
                write_delphi(self.folder.folder, one, judged, settings.task, hookpoint)
        names = [one.name for one in found]
        shared = [name for name in (*WORDS.values(), TOKENS) if name in names]
        pairs = [
            (name, other)
            for name in settings.labels
            for other in (f"{name}: shuffled", f"{name}: {SAME_START}", *shared)
            if other in names
        ]
        pairs += combinations(settings.labels, 2)
        return {
            "not_measured": self._missing,
            "counts": {
                "texts": len(self._texts),
                "latents": len(judged),
                "latents_without_windows": len(latents) - len(judged),
                "windows": sum(map(len, judged.values())),
            },
            "interval": f"95 %; shares: over latents, valid at 0 and 1 (Wilson); {METHOD}",
            **about,
            "conditions": [scores(one, judged, settings.seed) for one in found],
            "comparisons": compared(found, pairs, judged, settings.seed),
        }

    def _windows(self) -> dict[int, list[Window]]:
        """The windows of each latent, in the order in which they are shown."""
        rows, settings = self.folder.rows, self.settings
        latents = self._encoder.latents
        missing = [latent for latent in latents if f"windows/{latent}" not in rows]
        if missing:
            corpus = read_corpus(self.model, self._encoder, self._texts, settings, self.progress)
            for latent in missing:
                column = latents.index(latent)
                some = sampled_windows(
                    corpus, column, settings.windows, settings.threshold, settings.seed
                )
                if settings.task == "fuzzing":
                    found = marked_windows(self.model, corpus, some, column, settings)
                else:
                    found = plain_windows(self.model, corpus, some)
                generator = np.random.default_rng(row_seed(settings.seed, "order", latent))
                shown = [found[i] for i in generator.permutation(len(found))]
                row = {
                    "windows": [[one.text, one.fits] for one in shown],
                    "top_tokens": ", ".join(top_tokens(self.model, corpus, some, column)),
                }
                self.folder.add(f"windows/{latent}", row)
        for latent in latents:
            if rows[f"windows/{latent}"].get("top_tokens") is None:
                raise self.folder.damaged(f"windows/{latent}", "has no top tokens")
        return {
            latent: [Window(*one) for one in rows[f"windows/{latent}"]["windows"]]
            for latent in latents
        }

    def _conditions(self, latents: list[int]) -> Iterator[tuple[Condition, dict[int, str]]]:
        """Every condition with the label that each latent has under it."""
        order: list[int] = shuffle_order(len(latents), self.settings.seed).tolist()
        for name, labels in self._given.labels.items():
            yield Condition(name, f"labels of {self.settings.labels[name]}"), labels
        decoder = self._encoder.decoder[: len(self._given.latents)]
        readers = self._given.word_readers(self.model, self.settings, self._encoder.d_sae)
        self._missing = missing_words(readers, "no training_labels to fit it on")
        for name, reader in readers.items():
            words = zip(self._given.latents, reader.labels(decoder), strict=True)
            yield Condition(name, words_meaning(reader)), dict(words)
        meaning = "the tokens that activate the latent most, in windows that are not judged"
        rows = self.folder.rows
        yield (
            Condition(TOKENS, meaning),
            {latent: rows[f"windows/{latent}"]["top_tokens"] for latent in latents},
        )
        for name, labels in self._given.labels.items():
            meaning = "each latent has another one's label, on the same windows"
            moved = {one: labels[latents[i]] for one, i in zip(latents, order, strict=True)}
            yield Condition(f"{name}: shuffled", meaning, shuffles_labels=True), moved
        meaning = "each latent has a label of something else that begins as its own does"
        for name, labels in self._given.same_start.items():
            if any(latent in labels for latent in latents):
                yield Condition(f"{name}: {SAME_START}", meaning, shuffles_labels=True), labels

    def _answered(
        self, conditions: Sequence[tuple[Condition, Mapping[int, str]]], windows: Windows
    ) -> tuple[list[Judged], dict[str, Any]]:
        """The chat model's answers about all windows, and who it is."""
        settings = self.settings
        judge = self.chat(settings.judge, self.model)
        judged = []
        for condition, labels in conditions:
            answers: dict[int, list[int | None]] = {}
            for done, (latent, found) in enumerate(windows.items()):
                self.progress(condition.name, done, len(windows))
                if latent not in labels:
                    continue

                def make(
                    label: str = labels[latent], found: Sequence[Window] = found
                ) -> list[int | None]:
                    parts = [
                        found[i : i + settings.shown] for i in range(0, len(found), settings.shown)
                    ]
                    texts = judge.answer([request(settings, label, part) for part in parts])
                    pairs = zip(texts, parts, strict=True)
                    return [one for text, part in pairs for one in read_answer(text, len(part))]

                key = f"{condition.name}/{latent}"
                answers[latent] = self.folder.values(key, "answers", len(found), make)
            self.progress(condition.name, len(windows), len(windows))
            judged.append(Judged(condition, labels, answers))
        return judged, {"judge": judge.name}

    def _by_likelihood(
        self,
        conditions: Sequence[tuple[Condition, Mapping[int, str]]],
        windows: Windows,
        everyone: Windows,
    ) -> tuple[list[Judged], dict[str, Any]]:
        """Answers made from likelihoods, and how the threshold was chosen.

        Raises DataError if no latent of the calibration has windows.
        """
        settings, model = self.settings, self.model
        others = {latent: everyone[latent] for latent in self._given.calibration}
        others = {latent: found for latent, found in others.items() if found}
        if not others:
            raise DataError(
                f"{settings.texts}: no latent of {settings.calibration_labels} has windows that "
                "activate it and windows that do not. Give more documents."
            )
        if settings.judge.model is not None:
            model = load_model(settings.judge.model, device_map=settings.device)
        self.folder.also_depends_on("chat_weights", weights_digest(model))
        every = [one for found in others.values() for one in found]
        references = sample(every, settings.references, settings.seed)
        judge = LikelihoodJudge(model, settings.task, references)
        labels = {latent: [self._given.calibration[latent]] for latent in others}
        labels |= {latent: [of.get(latent, "") for _, of in conditions] for latent in windows}
        gains: dict[int, list[list[float | None]]] = {}
        for done, latent in enumerate(labels):
            self.progress("likelihoods", done, len(labels))
            asked, shown = labels[latent], everyone[latent]
            earlier = self.folder.rows.get(f"gains/{latent}")
            if earlier is not None and latent in windows and len(earlier["gains"]) < len(asked):
                raise ConfigError(
                    f"{self.folder.folder}: this folder is from an earlier version, which "
                    "judged fewer conditions. Give another --out."
                )
            gains[latent] = self.folder.values(
                f"gains/{latent}",
                "gains",
                len(asked),
                lambda asked=asked, shown=shown: judge.gains(shown, asked),
            )
        self.progress("likelihoods", len(labels), len(labels))
        found = {latent: gains[latent][0] for latent in others}
        threshold, accuracy = best_threshold(found, others)
        judged = [
            Judged.above(threshold, condition, of, {one: gains[one][i] for one in windows})
            for i, (condition, of) in enumerate(conditions)
        ]
        calibration = {
            "latents": len(others),
            "threshold": threshold,
            "balanced_accuracy": accuracy,
            "references": len(references),
        }
        return judged, {"judge": model.name, "calibration": calibration}

    @classmethod
    def report(cls, results: Mapping[str, Any]) -> Iterator[Table | str]:
        yield from report(results)
