"""The retrieval protocol: do labels of held-out vectors find their topics?

Every adapter and every file of labels is a condition; for the adapters come the zero vector,
random directions and, once, the untrained scales, the readers that need no adapter (logit lens,
cosine, ridge probe) and the oracles of the spelling control. The scale of each is chosen on vectors
of another split than the measured ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from selfie_adapters.adapters import Adapter, find_adapter_file, load_adapter
from selfie_adapters.config.evaluation.retrieval import (
    TRAINING_LABELS,
    UNTRAINED,
    RetrievalSettings,
)
from selfie_adapters.config.shared import Sampling
from selfie_adapters.dataset.controls import shuffle_order
from selfie_adapters.errors import DataError
from selfie_adapters.evaluation.base import LabelsRow, Protocol
from selfie_adapters.evaluation.baselines import TokenBaseline, untrained_readers
from selfie_adapters.evaluation.comparing import METHOD
from selfie_adapters.evaluation.controls import (
    Condition,
    Untrained,
    best_scale,
    choosing_items,
    sample,
)
from selfie_adapters.evaluation.folder import digest_of, file_hashes
from selfie_adapters.evaluation.recipes import refuse_copies, subjects_of
from selfie_adapters.evaluation.retrieval.embedding import open_embedder, require_embedder
from selfie_adapters.evaluation.retrieval.lookup import (
    Query,
    Scored,
    TopicIndex,
    summary_of,
)
from selfie_adapters.evaluation.retrieval.results import (
    compare_all,
    compared,
    shared,
)
from selfie_adapters.evaluation.retrieval.seeds import compare_recipes
from selfie_adapters.evaluation.retrieval.spelling import ORACLES
from selfie_adapters.evaluation.retrieval.tables import report_conditions, report_differences
from selfie_adapters.evaluation.retrieval.targets import (
    Task,
    gather,
    given_labels,
    key_of,
    other_labels,
    read_task,
    targets_of_vectors,
)
from selfie_adapters.evaluation.tables import Table
from selfie_adapters.files.json_lines import write_jsonl
from selfie_adapters.labelling import Labeller
from selfie_adapters.model import SoftPrompt
from selfie_adapters.training.closed_form import VECTORS_A_DIMENSION

TABLE = "labels.jsonl"


@dataclass(frozen=True)
class LabelledTopics:
    """One condition: a label for each target."""

    name: str
    meaning: str
    texts: Sequence[str | None]
    """None: the target has none, and is not looked up."""
    scale: float | None = None


class Retrieval(Protocol[RetrievalSettings]):
    """It also writes labels.jsonl, one row per condition and label."""

    settings_class = RetrievalSettings
    row = LabelsRow

    def check(self) -> None:
        if self._embedder is None:
            require_embedder(self.settings.embedder, "selfie eval retrieval")

    def inputs(self) -> dict[str, str]:
        """Raises DataError for a vector without a topic, and for fewer than two targets;
        ConfigError for one adapter under two names."""
        self._task, self.settings = task, settings = read_task(self.settings)
        hashes = {"topics_and_vectors": task.digest(chooses_scales=bool(settings.adapters))}
        files = {name: find_adapter_file(path) for name, path in settings.adapters.items()}
        digests = file_hashes(files)
        refuse_copies(digests)
        hashes |= {f"adapter {name}": digest for name, digest in digests.items()}
        for name, path in settings.labels.items():
            hashes[f"labels {name}"] = digest_of(given_labels(path, task.targets, task.entries))
        self._embedder = self._embedder or open_embedder(settings.embedder, settings.device)
        return {**hashes, "embedder_digest": self._embedder.digest}

    def measure(self) -> dict[str, Any]:
        settings, task = self.settings, self._task
        self.progress("embedding the index", 0, len(task.entries))
        self.index = TopicIndex(task.entries, settings.index, self._embedder)
        self.scale_choices: dict[str, dict[str, float]] = {}
        self.choosing: str | None = None
        self._adapters: dict[str, Adapter] = {}
        scored: list[Scored] = []
        for one in self._conditions():
            self.progress(f"looking up: {one.name}", 0, len(task.targets))
            queries = [
                Query(target.key, target.topic, text, one.scale)
                for target, text in zip(task.targets, one.texts, strict=True)
                if text is not None
            ]
            if queries:
                scored.append(self.index.look_up(one.name, one.meaning, queries))
        write_jsonl(
            self.folder.folder / TABLE, (row for one in scored for row in self.index.table(one))
        )
        seed, names = settings.seed, [*settings.adapters, *settings.labels]
        oracles = [self.index.first_letters(scored[0].queries, count) for count in ORACLES]
        found = {one.condition: one for one in scored}
        of = subjects_of(self._adapters, settings.labels)
        over = compare_recipes(found, of, shared(names, scored, oracles), seed)
        return {
            "counts": {"topics": len(task.entries), "queries": len(task.targets)},
            "interval": "95 %, over queries; recall: Wilson, reciprocal rank: bootstrap; " + METHOD,
            "chance_at_1": 1 / len(task.entries),
            "scale_choices": {
                "split": self.choosing,
                "mean_reciprocal_rank": self.scale_choices,
            },
            "conditions": [
                *(one.summary(seed) for one in scored),
                *(summary_of(one, seed) for one in oracles),
            ],
            "comparisons": compare_all(
                compared(of, scored, oracles),
                seed,
                (pair for one in over for pair in one["comparisons"]),
            ),
            "recipes": over,
        }

    def _conditions(self) -> Iterator[LabelledTopics]:
        """Every condition, those under evaluation first."""
        settings, task = self.settings, self._task
        order: list[int] = shuffle_order(len(task.targets), settings.seed).tolist()
        real: list[LabelledTopics] = []
        controls: list[LabelledTopics] = []
        if settings.adapters:
            vectors = _Vectors(self, task)
            prompt: SoftPrompt | None = None
            for name, path in settings.adapters.items():
                self._adapters[name] = load_adapter(path)
                labeller = Labeller(self.model, self._adapters[name])
                prompt = prompt or labeller.prompt.prompt
                scale = vectors.best_scale(name, labeller, settings.scales)
                real.append(vectors.labelled(Condition(name, f"adapter {path}"), labeller, scale))
                controls += vectors.without_meaning(name, labeller, scale)
            untrained = Untrained(self.model)
            plain = untrained.labeller(prompt)
            scale = vectors.best_scale(UNTRAINED, plain, settings.untrained_scales)
            condition = Condition(UNTRAINED, untrained.meaning(scale), through="untrained")
            controls.append(vectors.labelled(condition, plain, scale))
            controls += vectors.without_question()
        for name, path in settings.labels.items():
            labels = given_labels(path, task.targets, task.entries)
            real.append(LabelledTopics(name, f"labels of {path}", labels))
        yield from real
        for one in real:
            texts = [one.texts[i] for i in order]
            yield LabelledTopics(
                f"{one.name}: shuffled", "each label is looked up as another's", texts
            )
        yield from controls
        yield LabelledTopics(
            TRAINING_LABELS,
            "a given label that is not the topic's title; vectors without one are omitted",
            other_labels(task.targets, task.entries, settings.seed),
        )

    @classmethod
    def report(cls, results: Mapping[str, Any]) -> Iterator[Table | str]:
        counts, settings = results["counts"], results["settings"]
        title = f"{counts['queries']} labels among {counts['topics']} topics"
        yield report_conditions(title, results, {*settings["adapters"], *settings["labels"]})
        yield from report_differences(results)
        choices = results.get("scale_choices") or {  # results of earlier releases
            "split": "train",
            "mean_reciprocal_rank": results.get("scales_chosen_on_training_vectors", {}),
        }
        for name, tried in choices["mean_reciprocal_rank"].items():
            listed = ", ".join(f"{scale}: {value:.3f}" for scale, value in tried.items())
            where = f"vectors of {choices['split']}"
            yield f"scale of {name}, by mean reciprocal rank on {where}: {listed}"


class _Vectors:
    """The measured vectors, labelled under each condition."""

    def __init__(self, run: Retrieval, task: Task) -> None:
        assert task.dataset is not None
        run.check_width(task.dataset, run.settings.vectors or "")
        self._run, self._task, self._dataset = run, task, task.dataset
        self._given = task.vectors()
        self._keys = [target.key for target in task.targets]

    def labelled(self, condition: Condition, labeller: Labeller, scale: float) -> LabelledTopics:
        """The vectors under a condition, each with one label."""
        vectors = condition.vectors(self._given, self._run.settings.seed)
        texts = self._label(condition.name, labeller, vectors, self._keys, scale)
        return LabelledTopics(condition.name, condition.meaning, texts, scale)

    def without_meaning(self, name: str, labeller: Labeller, scale: float) -> list[LabelledTopics]:
        """The adapter on the zero vector, once for all targets, and on random directions."""
        zeros = torch.zeros_like(self._given[:1])
        zero = self._label(f"{name}: zero vector", labeller, zeros, ["zero"], 1.0)
        meaning = "Gaussian directions in place of vectors"
        random = Condition(f"{name}: random", meaning, reads="random")
        return [
            LabelledTopics(
                f"{name}: zero vector", "its bias alone: one label", zero * len(self._keys)
            ),
            self.labelled(random, labeller, scale),
        ]

    def without_question(self) -> list[LabelledTopics]:
        """Readers that need no adapter; the ridge probe is fitted on the training vectors."""
        run = self._run
        model, dataset, seed = run.model, self._dataset, run.settings.seed
        measured = {*self._keys}
        free = [item for item in dataset.labelled("train") if key_of(dataset, item) not in measured]
        items = sample(free, VECTORS_A_DIMENSION * dataset.d_model, seed)
        names = [item.labels[0] for item in items]
        found = []
        for reader in untrained_readers(model, gather(dataset, items), names, seed):

            def make(which: range, reader: TokenBaseline = reader) -> list[str]:
                return reader.words(self._given[which.start : which.stop])

            size = run.settings.batch_size
            texts = run.in_batches(reader.name, len(self._keys), size, "labels", make)
            found.append(LabelledTopics(reader.name, reader.meaning, texts))
        return found

    def best_scale(self, name: str, labeller: Labeller, scales: Sequence[float]) -> float:
        """The scale with the highest mean reciprocal rank on vectors of another split."""
        if len(scales) == 1:
            return scales[0]
        scale, tried = best_scale(scales, self._rank_loss(name, labeller))
        chosen = {f"{one:g}": round(-loss, 4) for one, loss in tried.items()}
        self._run.scale_choices[name] = chosen
        return scale

    def _rank_loss(self, name: str, labeller: Labeller) -> Callable[[float], float]:
        """Minus the mean reciprocal rank on vectors of another split, by scale."""
        run, settings, task, dataset = self._run, self._run.settings, self._task, self._dataset
        assert settings.split is not None  # `inputs` settled it
        items = choosing_items(dataset, settings.split, settings.choose_on, settings.seed)
        if not items:
            raise DataError(
                f"{settings.vectors}: no vector of another split than {settings.split} to choose a "
                "scale on. Give one scale in scales and in untrained_scales."
            )
        run.choosing = str(items[0].split)
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
