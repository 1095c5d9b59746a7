"""Who says which windows fit a label: a chat model that answers, or a model's likelihoods.

delphi's judge is a chat model that answers 1 or 0 for each window. A small model does not answer
such questions in form. Its likelihoods say something all the same: how much more likely the label
is after a window, and a question about it, than after windows of anything. A window fits where that
gain is above a threshold, which is chosen on other latents. So the judge of likelihoods never reads
an instruction, gives a number instead of a sampled answer, and needs labelled latents to calibrate.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from selfie_adapters.chat import ChatRequest, Message
from selfie_adapters.config.evaluation.detection import DetectionSettings
from selfie_adapters.evaluation.detection.windows import Window
from selfie_adapters.inference.continuation import Continuation, padded_left
from selfie_adapters.inference.generate import row_seed
from selfie_adapters.inference.label_scores import Prefilled, score_generated
from selfie_adapters.model import FrozenModel
from selfie_adapters.model.cache_use import cache_use
from selfie_adapters.model.tokens import begun_ids

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
CONTINUED = {
    "detection": "{text}\n\nKeywords:",
    "fuzzing": "Words: {marked}\n\nKeywords:",
}
"""What a label follows, for the judge of likelihoods. With the whole passage a small model looks at
everything in it, marked or not; so in fuzzing it is given the marked words alone."""
_MARKED = re.compile(r"<<(.*?)>>")


def request(settings: DetectionSettings, label: str, windows: Sequence[Window]) -> ChatRequest:
    """The question to a chat model about some windows."""
    passages = "\n".join(
        f"{number}. {_one_line(window)}" for number, window in enumerate(windows, start=1)
    )
    asked = PROMPT.format(task=QUESTIONS[settings.task], label=label, passages=passages)
    return ChatRequest(
        (Message("user", asked),),
        max_tokens=4 * len(windows) + 8,
        temperature=settings.temperature,
        seed=row_seed(settings.seed, label, passages),
        begun="[",
    )


def read_answer(text: str, count: int) -> list[int | None]:
    """The answers in a list of 0 and 1 that was begun with "["; all None where it is none of
    `count` numbers."""
    inside = text.partition("]")[0].rpartition("[")[2]
    found = re.findall(r"(?<![\w.])[01](?![\w.])", inside)
    if len(found) != count or re.search(r"[^\s01,]", inside):
        return [None] * count
    return [int(one) for one in found]


class LikelihoodJudge:
    """How much more likely labels are after a window than after reference windows."""

    def __init__(self, model: FrozenModel, task: str, references: Sequence[Window]) -> None:
        """references: windows that no label is judged by, at least one."""
        self._model, self._task = model, task
        self._references = self._read(references)

    def gains(self, windows: Sequence[Window], labels: Sequence[str]) -> list[list[float | None]]:
        """log p(label | window) minus its mean over the references, nats per token of the label.

        One list per label, one number per window; None for an empty label.
        """
        tokens = {label: self._tokens(label) for label in labels if label.strip()}
        given = self._log_probs(self._read(windows), [*tokens.values()])
        usual = self._log_probs(self._references, [*tokens.values()])
        nothing: list[float | None] = [None] * len(windows)
        found = {
            label: ((own - of_references.mean()) / len(ids)).tolist()
            for (label, ids), own, of_references in zip(tokens.items(), given, usual, strict=True)
        }
        return [[*found.get(label, nothing)] for label in labels]

    def _read(self, windows: Sequence[Window]) -> list[Prefilled]:
        prompts = begun_ids(self._model.tokenizer, [self._prompt(one) for one in windows])
        if not cache_use(self._model).branches:  # padding would change what is read
            return [self._prefilled([one]) for one in prompts]
        return [self._prefilled(prompts)]

    @torch.inference_mode()
    def _prefilled(self, prompts: Sequence[Sequence[int]]) -> Prefilled:
        ids, mask = padded_left(prompts)
        alone = len(prompts) == 1
        read = Continuation(self._model, ids, mask=None if alone else mask)
        return Prefilled(read, read.logits.float().log_softmax(dim=-1).cpu())

    def _log_probs(self, read: Sequence[Prefilled], answers: list[list[int]]) -> np.ndarray:
        """log p of each answer after each window: [answers, windows]."""
        parts = []
        for part in read:
            rows = len(part.first)
            owners = torch.arange(rows).repeat(len(answers))
            repeated = [ids for ids in answers for _ in range(rows)]
            values = score_generated(self._model, part, repeated, owners) if answers else []
            parts.append(np.array(values).reshape(len(answers), rows))
        return np.concatenate(parts, axis=1)

    def _prompt(self, window: Window) -> str:
        text = _one_line(window)
        return CONTINUED[self._task].format(text=text, marked=", ".join(marked_words(text)))

    def _tokens(self, label: str) -> list[int]:
        return self._model.tokenizer.encode(f" {label.strip()}", add_special_tokens=False)


def marked_words(text: str) -> list[str]:
    """What is marked in a window of fuzzing, in order, each once."""
    return list(dict.fromkeys(found.strip() for found in _MARKED.findall(text)))


def _one_line(window: Window) -> str:
    return " ".join(window.text.split())


def best_threshold(
    gains: Mapping[int, Sequence[float | None]], windows: Mapping[int, Sequence[Window]]
) -> tuple[float, float]:
    """The gain above which a window is said to fit, and the balanced accuracy there: the mean over
    latents is highest. Of equally good thresholds the lowest."""
    values, worth = [-np.inf], [0.0]
    for latent, found in windows.items():
        fits = np.array([one.fits for one in found])
        for gain, right in zip(gains[latent], fits, strict=True):
            if gain is not None:
                values.append(gain)
                worth.append((1 if right else -1) / (2 * (fits == right).sum() * len(windows)))
    order = np.argsort(values, kind="stable")
    ranked = np.array(values)[order]
    # Balanced accuracy if all above this value fit: half is right by saying so of everything.
    accuracy = 0.5 - np.cumsum(np.array(worth)[order])
    last_of_equal = np.append(ranked[1:] > ranked[:-1], True)
    best = int(np.argmax(np.where(last_of_equal, accuracy, -np.inf)))
    following = ranked[best + 1] if best + 1 < len(ranked) else ranked[best]
    middle = following if best == 0 else (ranked[best] + following) / 2
    return float(middle), float(accuracy[best])
