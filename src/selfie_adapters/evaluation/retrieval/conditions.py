"""Labels of the same vectors under every condition: adapters, runs, and what they have to beat."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from selfie_adapters.adapters import create_adapter, load_adapter
from selfie_adapters.config.evaluation.retrieval import (
    TRAINING_LABELS,
    UNTRAINED,
    RetrievalSettings,
)
from selfie_adapters.dataset.controls import random_vectors, shuffle_order
from selfie_adapters.errors import DataError
from selfie_adapters.evaluation.folder import EvaluationFolder
from selfie_adapters.evaluation.retrieval.lookup import Query, TopicIndex
from selfie_adapters.evaluation.retrieval.targets import (
    Target,
    given_labels,
    key_of,
    sample,
    targets_of_vectors,
)
from selfie_adapters.evaluation.retrieval.task import Task, gather
from selfie_adapters.evaluation.retrieval.title_index import Entry
from selfie_adapters.evaluation.spoken_labels import Progress, speak
from selfie_adapters.inference.sampling import Sampling
from selfie_adapters.labelling import Labeller
from selfie_adapters.model import FrozenModel, SoftPrompt, load_model
from selfie_adapters.model.fingerprint import mean_embedding_norm, weights_digest


@dataclass(frozen=True)
class Said:
    """One condition: a text for each target."""

    name: str
    meaning: str
    texts: Sequence[str]
    scale: float | None = None


def conditions(
    settings: RetrievalSettings,
    task: Task,
    kept: EvaluationFolder,
    index: TopicIndex,
    model: FrozenModel | None,
    choices: dict[str, dict[str, float]],
    progress: Progress,
) -> Iterator[Said]:
    """Every condition, the real ones first; `choices` receives how scales were chosen."""
    order: list[int] = shuffle_order(len(task.targets), settings.seed).tolist()
    real: list[Said] = []
    controls: list[Said] = []
    first: Labeller | None = None
    if settings.adapters:
        speaker = _Speaker(settings, task, kept, index, model, choices, progress)
        for name, path in settings.adapters.items():
            labeller = Labeller(speaker.model, load_adapter(path))
            first = first or labeller
            real.append(speaker.trained(name, labeller))
            controls += speaker.without_meaning(name, labeller, real[-1].scale or 1.0)
        assert first is not None
        controls.append(speaker.untrained(first.prompt.prompt))
    for name, path in settings.labels.items():
        real.append(Said(name, f"labels of {path}", given_labels(path, task.targets, task.entries)))
    yield from real
    for one in real:
        texts = [one.texts[i] for i in order]
        yield Said(f"{one.name}: shuffled", "each label is looked up as another's", texts)
    yield from controls
    yield Said(
        TRAINING_LABELS,
        "a given label of the vector that is not its topic's title, where it has one",
        other_labels(task.targets, task.entries, settings.seed),
    )


class _Speaker:
    """Lets the model label the vectors under each condition."""

    def __init__(
        self,
        settings: RetrievalSettings,
        task: Task,
        kept: EvaluationFolder,
        index: TopicIndex,
        model: FrozenModel | None,
        choices: dict[str, dict[str, float]],
        progress: Progress,
    ) -> None:
        self._settings, self._task, self._kept, self._index = settings, task, kept, index
        self._choices, self._progress = choices, progress
        self.model = model or load_model(settings.model or "", settings.dtype, settings.device)
        kept.also_depends_on("model_weights", weights_digest(self.model))
        assert task.dataset is not None
        if task.dataset.d_model != self.model.d_model:
            raise DataError(
                f"{settings.vectors}: vectors of width {task.dataset.d_model}; the model "
                f"{self.model.name} has d_model {self.model.d_model}. Use the model the vectors "
                "come from."
            )
        self._vectors = task.vectors()
        self._keys = [target.key for target in task.targets]

    def trained(self, name: str, labeller: Labeller) -> Said:
        scale = self._best_scale(name, labeller, self._settings.scales)
        texts = self._speak(name, labeller, self._vectors, self._keys, scale)
        return Said(name, f"adapter {self._settings.adapters[name]}", texts, scale)

    def without_meaning(self, name: str, labeller: Labeller, scale: float) -> list[Said]:
        zeros = torch.zeros_like(self._vectors[:1])
        zero = self._speak(f"{name}: zero vector", labeller, zeros, ["zero"], 1.0)
        drawn = random_vectors(self._vectors, self._settings.seed)
        random = self._speak(f"{name}: random", labeller, drawn, self._keys, scale)
        return [
            Said(f"{name}: zero vector", "its bias alone: one label", zero * len(self._keys)),
            Said(f"{name}: random", "Gaussian directions in place of vectors", random, scale),
        ]

    def untrained(self, prompt: SoftPrompt) -> Said:
        """Without an adapter, through the first adapter's prompt."""
        norm = mean_embedding_norm(self.model)
        adapter = create_adapter("scale_only", self.model.d_model, init_scale=norm)
        labeller = Labeller(self.model, adapter, prompt)
        scale = self._best_scale(UNTRAINED, labeller, self._settings.untrained_scales)
        texts = self._speak(UNTRAINED, labeller, self._vectors, self._keys, scale)
        return Said(UNTRAINED, f"unit vector × {scale:g} mean embedding norms", texts, scale)

    def _best_scale(self, name: str, labeller: Labeller, scales: Sequence[float]) -> float:
        """The scale with the highest mean reciprocal rank on training vectors."""
        if len(scales) == 1:
            return scales[0]
        dataset, settings = self._task.dataset, self._settings
        assert dataset is not None
        measured = {target.key for target in self._task.targets}
        free = [item for item in dataset.labelled("train") if key_of(dataset, item) not in measured]
        items = sample(free, settings.choose_on, settings.seed)
        if not items:
            raise DataError(
                f"{settings.vectors}: no training vector is left to choose a scale on. Give one "
                "scale in scales and in untrained_scales."
            )
        source = settings.topics or settings.vectors or ""
        targets = targets_of_vectors(dataset, items, self._task.entries, source)
        vectors, keys = gather(dataset, items), [target.key for target in targets]
        found: dict[float, float] = {}
        for scale in scales:
            texts = self._speak(f"{name}: choosing a scale", labeller, vectors, keys, scale)
            queries = [Query(t.key, t.topic, x) for t, x in zip(targets, texts, strict=True)]
            found[scale] = float(self._index.look_up(name, "", queries).reciprocal().mean())
        self._choices[name] = {f"{scale:g}": round(value, 4) for scale, value in found.items()}
        return max(scales, key=lambda scale: found[scale])

    def _speak(
        self, name: str, labeller: Labeller, vectors: Tensor, keys: list[str], scale: float
    ) -> list[str]:
        s = self._settings
        sampling = Sampling(s.temperature, s.top_p, max_new_tokens=s.max_new_tokens)
        return speak(
            self._kept,
            labeller,
            name,
            vectors,
            keys,
            scale,
            sampling,
            s.seed,
            s.batch_size,
            self._progress,
        )


def other_labels(targets: Sequence[Target], entries: Sequence[Entry], seed: int) -> list[str]:
    """Of each target's given labels one that is not its topic's title, where it has one."""
    generator = np.random.default_rng(seed)
    labels = []
    for target in targets:
        title = entries[target.topic].title
        others = [label for label in target.labels if label != title] or [title]
        labels.append(others[int(generator.integers(len(others)))])
    return labels
