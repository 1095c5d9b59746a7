"""The retrieval protocol: do labels of held-out vectors find their topics?

Every adapter and every file of labels is a condition; for the adapters come the zero vector,
random directions and, once, the untrained scales. The scale of each is chosen on training vectors,
which are not measured on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from selfie_adapters.adapters import find_adapter_file, load_adapter
from selfie_adapters.config.evaluation.retrieval import (
    TRAINING_LABELS,
    UNTRAINED,
    RetrievalSettings,
)
from selfie_adapters.dataset.controls import shuffle_order
from selfie_adapters.errors import DataError
from selfie_adapters.evaluation.base import LabelsRow, Protocol, Table
from selfie_adapters.evaluation.controls import Condition, Untrained, best_scale
from selfie_adapters.evaluation.folder import digest_of, file_hashes
from selfie_adapters.evaluation.retrieval.embedding import open_embedder, require_embedder
from selfie_adapters.evaluation.retrieval.lookup import (
    Query,
    Scored,
    TopicIndex,
    compare,
    report_comparisons,
    report_conditions,
)
from selfie_adapters.evaluation.retrieval.targets import (
    Task,
    gather,
    given_labels,
    key_of,
    other_labels,
    read_task,
    sample,
    targets_of_vectors,
)
from selfie_adapters.files.json_lines import write_jsonl
from selfie_adapters.inference.sampling import Sampling
from selfie_adapters.labelling import Labeller
from selfie_adapters.model import SoftPrompt

TABLE = "labels.jsonl"


@dataclass(frozen=True)
class Labelled:
    """One condition: a label for each target."""

    name: str
    meaning: str
    texts: Sequence[str]
    scale: float | None = None


class Retrieval(Protocol[RetrievalSettings]):
    """It also writes labels.jsonl, one row per condition and label."""

    settings_class = RetrievalSettings
    row = LabelsRow

    def check(self) -> None:
        if self._embedder is None:
            require_embedder(self.settings.embedder, "selfie eval retrieval")

    def inputs(self) -> dict[str, str]:
        """Raises DataError for a vector without a topic, and for fewer than two targets."""
        settings = self.settings
        self._task = task = read_task(settings)
        hashes = {"topics_and_vectors": task.digest(chooses_scales=bool(settings.adapters))}
        files = {f"adapter {n}": find_adapter_file(path) for n, path in settings.adapters.items()}
        hashes |= file_hashes(files)
        for name, path in settings.labels.items():
            hashes[f"labels {name}"] = digest_of(given_labels(path, task.targets, task.entries))
        self._embedder = self._embedder or open_embedder(settings.embedder, settings.device)
        return {**hashes, "embedder_digest": self._embedder.digest}

    def measure(self) -> dict[str, Any]:
        settings, task = self.settings, self._task
        self.progress("embedding the index", 0, len(task.entries))
        self.index = TopicIndex(task.entries, settings.index, self._embedder)
        self.scale_choices: dict[str, dict[str, float]] = {}
        scored: list[Scored] = []
        for one in self._conditions():
            self.progress(f"looking up: {one.name}", 0, len(task.targets))
            queries = [
                Query(target.key, target.topic, text, one.scale)
                for target, text in zip(task.targets, one.texts, strict=True)
            ]
            scored.append(self.index.look_up(one.name, one.meaning, queries))
        write_jsonl(
            self.folder.folder / TABLE, (row for one in scored for row in self.index.table(one))
        )
        seed = settings.seed
        real = [one for one in scored if one.condition in {*settings.adapters, *settings.labels}]
        others = [one for one in scored if one.condition == UNTRAINED]
        return {
            "counts": {"topics": len(task.entries), "queries": len(task.targets)},
            "interval": "95 %, bootstrap over queries",
            "chance_at_1": 1 / len(task.entries),
            "scales_chosen_on_training_vectors": self.scale_choices,
            "conditions": [one.summary(seed) for one in scored],
            "comparisons": [compare(a, b, seed) for a, b in combinations([*real, *others], 2)],
        }

    def _conditions(self) -> Iterator[Labelled]:
        """Every condition, those under evaluation first."""
        settings, task = self.settings, self._task
        order: list[int] = shuffle_order(len(task.targets), settings.seed).tolist()
        real: list[Labelled] = []
        controls: list[Labelled] = []
        if settings.adapters:
            vectors = _Vectors(self, task)
            prompt: SoftPrompt | None = None
            for name, path in settings.adapters.items():
                labeller = Labeller(self.model, load_adapter(path))
                prompt = prompt or labeller.prompt.prompt
                scale = vectors.best_scale(name, labeller, settings.scales)
                real.append(vectors.labelled(Condition(name, f"adapter {path}"), labeller, scale))
                controls += vectors.without_meaning(name, labeller, scale)
            untrained = Untrained(self.model)
            plain = untrained.labeller(prompt)
            scale = vectors.best_scale(UNTRAINED, plain, settings.untrained_scales)
            condition = Condition(UNTRAINED, untrained.meaning(scale), through="untrained")
            controls.append(vectors.labelled(condition, plain, scale))
        for name, path in settings.labels.items():
            labels = given_labels(path, task.targets, task.entries)
            real.append(Labelled(name, f"labels of {path}", labels))
        yield from real
        for one in real:
            texts = [one.texts[i] for i in order]
            yield Labelled(f"{one.name}: shuffled", "each label is looked up as another's", texts)
        yield from controls
        yield Labelled(
            TRAINING_LABELS,
            "a given label of the vector that is not its topic's title, where it has one",
            other_labels(task.targets, task.entries, settings.seed),
        )

    @classmethod
    def report(cls, results: Mapping[str, Any]) -> Iterator[Table | str]:
        counts, settings = results["counts"], results["settings"]
        title = f"{counts['queries']} labels among {counts['topics']} topics (95 % intervals)"
        bold = {*settings["adapters"], *settings["labels"]}
        yield report_conditions(title, results["conditions"], bold)
        for name, tried in results["scales_chosen_on_training_vectors"].items():
            listed = ", ".join(f"{scale}: {value:.3f}" for scale, value in tried.items())
            yield f"scale of {name}, by mean reciprocal rank on training vectors: {listed}"
        yield from report_comparisons(results["comparisons"])


class _Vectors:
    """The measured vectors, labelled under each condition."""

    def __init__(self, run: Retrieval, task: Task) -> None:
        assert task.dataset is not None
        run.check_width(task.dataset, run.settings.vectors or "")
        self._run, self._task, self._dataset = run, task, task.dataset
        self._given = task.vectors()
        self._keys = [target.key for target in task.targets]

    def labelled(self, condition: Condition, labeller: Labeller, scale: float) -> Labelled:
        """The vectors under a condition, each with one label."""
        vectors = condition.vectors(self._given, self._run.settings.seed)
        texts = self._label(condition.name, labeller, vectors, self._keys, scale)
        return Labelled(condition.name, condition.meaning, texts, scale)

    def without_meaning(self, name: str, labeller: Labeller, scale: float) -> list[Labelled]:
        """The adapter on the zero vector, once for all targets, and on random directions."""
        zeros = torch.zeros_like(self._given[:1])
        zero = self._label(f"{name}: zero vector", labeller, zeros, ["zero"], 1.0)
        meaning = "Gaussian directions in place of vectors"
        random = Condition(f"{name}: random", meaning, reads="random")
        return [
            Labelled(f"{name}: zero vector", "its bias alone: one label", zero * len(self._keys)),
            self.labelled(random, labeller, scale),
        ]

    def best_scale(self, name: str, labeller: Labeller, scales: Sequence[float]) -> float:
        """The scale with the highest mean reciprocal rank on training vectors."""
        if len(scales) == 1:
            return scales[0]
        scale, tried = best_scale(scales, self._rank_loss(name, labeller))
        chosen = {f"{one:g}": round(-loss, 4) for one, loss in tried.items()}
        self._run.scale_choices[name] = chosen
        return scale

    def _rank_loss(self, name: str, labeller: Labeller) -> Callable[[float], float]:
        """Minus the mean reciprocal rank on training vectors, as a function of the scale."""
        run, settings, task, dataset = self._run, self._run.settings, self._task, self._dataset
        measured = {*self._keys}
        free = [item for item in dataset.labelled("train") if key_of(dataset, item) not in measured]
        items = sample(free, settings.choose_on, settings.seed)
        if not items:
            raise DataError(
                f"{settings.vectors}: no training vector is left to choose a scale on. Give one "
                "scale in scales and in untrained_scales."
            )
        source = settings.topics or settings.vectors or ""
        targets = targets_of_vectors(dataset, items, task.entries, source)
        vectors, keys = gather(dataset, items), [target.key for target in targets]

        def loss(scale: float) -> float:
            texts = self._label(f"{name}: choosing a scale", labeller, vectors, keys, scale)
            queries = [Query(t.key, t.topic, x) for t, x in zip(targets, texts, strict=True)]
            return -float(run.index.look_up(name, "", queries).reciprocal().mean())

        return loss

    def _label(
        self, name: str, labeller: Labeller, vectors: Tensor, keys: list[str], scale: float
    ) -> list[str]:
        one = self._run.settings
        sampling = Sampling(one.temperature, one.top_p, max_new_tokens=one.max_new_tokens)
        return self._run.label(labeller, name, vectors, keys, scale, sampling)
