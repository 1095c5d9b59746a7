"""The inversion protocol: a control for adapters that merely invert the text of the prompt.

The vectors of "Tell me about a nocturnal bird of prey." hold no word *owl*. A label that names the
owl was read from what the model computed; one that repeats *bird* may have been copied. The same
prompts with the name in them are the positive control, another topic's label the floor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import msgspec
import numpy as np
from torch import Tensor

from selfie_adapters.adapters import find_adapter_file, load_adapter
from selfie_adapters.adapters.locating import find_mean_file, needed_adapter
from selfie_adapters.adapters.specialists import adapter_digest
from selfie_adapters.config.evaluation.inversion import InversionSettings
from selfie_adapters.config.lists import parse_selection
from selfie_adapters.errors import DataError
from selfie_adapters.evaluation.base import Protocol
from selfie_adapters.evaluation.baselines import untrained_readers
from selfie_adapters.evaluation.comparing import (
    METHOD,
    MeasureColumn,
    adjusted,
    comparison,
    difference_tables,
    paired,
)
from selfie_adapters.evaluation.controls import SoftTokenReader, other_topics, sample
from selfie_adapters.evaluation.folder import digest_of, file_hashes
from selfie_adapters.evaluation.inversion.descriptions import (
    Described,
    digest_values,
    glosses,
    repeated,
    written,
)
from selfie_adapters.evaluation.naming.judging import judge
from selfie_adapters.evaluation.tables import Table, percent
from selfie_adapters.files.json_lines import write_jsonl
from selfie_adapters.labelling import Labeller
from selfie_adapters.labelling.centering import load_mean
from selfie_adapters.model.user_text import Chat
from selfie_adapters.reading.read import chat_of_reading
from selfie_adapters.sources import open_topics
from selfie_adapters.sources.topics.reading import topic_texts, topic_vectors
from selfie_adapters.sources.topics.topic import Topic
from selfie_adapters.statistics import share_interval

TABLE = "labels.jsonl"
ADAPTER, NAMED, SHUFFLED = "adapter", "adapter, named prompt", "another description's label"
KIND = "-1"
"""The kind of position that is read: the last token of the prompt."""
MEASURES = ("names it", "right or related", "repeats a word", "repeats words only")
NAMES_IT, EITHER = f"{ADAPTER}: names it", "names it, or repeats a word"
COMPARED = {
    measure: MeasureColumn(f"{measure}, points", digits=0)
    for measure in ("names it", "repeats a word", EITHER)
}
"""What the report shows of the comparisons."""


class InversionRow(msgspec.Struct):
    """Labels of one batch of vectors under one condition."""

    labels: list[str]


class Inversion(Protocol[InversionSettings]):
    """It also writes labels.jsonl: one row per block, condition and description."""

    settings_class = InversionSettings
    row = InversionRow
    free = ("batch_size",)

    def inputs(self) -> dict[str, str]:
        """Raises DataError for fewer than two descriptions that do not name their topic."""
        settings = self.settings
        command = "selfie eval inversion"
        named = needed_adapter(settings.adapter, settings.model, command)
        self._file = find_adapter_file(named)
        self._mean = find_mean_file(settings.mean, self._file)
        # What is used is recorded, however it was named.
        self.settings = settings.model_copy(update={"adapter": named, "mean": self._mean})
        topics = open_topics(settings.topics)
        measured = [one for one in topics if one.split in (None, settings.split)]
        described: list[Described]
        if settings.descriptions is None:
            described, self._naming_it = glosses(measured)
        else:
            described, self._naming_it = written(settings.descriptions, measured)
        self._described = sample(described, settings.limit, settings.seed)
        if len({each.topic.title for each in self._described}) < 2:
            raise DataError(
                f"{settings.topics}: {len(described)} topics of split {settings.split} with a "
                f"description that does not name them ({self._naming_it} do); at least 2 are "
                'needed. Topics need a label such as "owl, a bird that hunts at night".'
            )
        own = {one.title for one in measured}
        train = [one for one in topics if one.split == "train" and one.title not in own]
        self._training = sample(train, settings.training, settings.seed)
        return {
            "descriptions": digest_of(digest_values(self._described)),
            "training": digest_of([one.title for one in self._training]),
            "adapter_file": adapter_digest(self._file),
            **file_hashes({"mean_file": self._mean}),
        }

    def measure(self) -> dict[str, Any]:
        settings, model = self.settings, self.model
        adapter = load_adapter(self._file, model.device)
        self._labeller = Labeller(model, adapter)
        chat, warnings = chat_of_reading(model, [adapter], None, self._mean)
        self._chat_format: Chat = chat
        layers = parse_selection(settings.layers, model.n_layers, "--layers")
        topics = [one.topic for one in self._described]
        told = [Topic(one.topic.labels, name=one.text) for one in self._described]
        states = self._captured("descriptions", told, layers)
        by_name = self._captured("named prompts", topics, layers)
        training = self._captured("training concepts", self._training, layers)
        blocks, rows = [], []
        for column, layer in enumerate(layers):
            vectors = [one[:, column] for one in (states, by_name, training)]
            labels = self._labels(layer, *vectors)
            judged = {name: self._judged(texts) for name, (_, texts) in labels.items()}
            blocks.append(self._block(layer, labels, judged))
            rows += self._rows(layer, labels, judged)
        write_jsonl(self.folder.folder / TABLE, rows)
        adjusted(pair for one in blocks for pair in one["comparisons"])
        return {
            "counts": {
                "descriptions": len(self._described),
                "topics_whose_descriptions_all_name_them": self._naming_it,
                "training": len(self._training),
            },
            "interval": "95 %; shares: Wilson, over topics; " + METHOD,
            "chat": self._chat_format,
            "warnings": warnings,
            "blocks": blocks,
        }

    def _captured(self, what: str, topics: Sequence[Topic], layers: Sequence[int]) -> Tensor:
        """Centered states of the prompts' last tokens: [topics, layers, d_model]."""
        done = 0

        def progress(more: int) -> None:
            nonlocal done
            done += more
            self.progress(what, done, len(topics))

        named = [Topic(one.labels, name=one.title) for one in topics]
        texts = topic_texts(self.model, named, self.settings.question, self._chat_format)
        states = topic_vectors(self.model, texts, layers, -1, progress)
        for column, layer in enumerate(layers):
            if self._mean is not None:
                states[:, column] -= load_mean(self._mean, layer, self.model.d_model, KIND)
        return states

    def _labels(
        self, layer: int, vectors: Tensor, by_name: Tensor, training: Tensor
    ) -> dict[str, tuple[str, list[str]]]:
        """Condition → what it is, and a label for each description."""
        own = SoftTokenReader(ADAPTER, "greedy label", self._labeller, 1.0, (layer, KIND))

        def read(name: str, make: Callable[[Tensor], list[str]], some: Tensor) -> list[str]:
            size = self.settings.batch_size
            unit = f"block {layer}: {name}"
            return self.in_batches(
                unit, len(some), size, "labels", lambda which: make(some[which.start : which.stop])
            )

        of = read(ADAPTER, own.words, vectors)
        units = np.array([one.topic.title for one in self._described])
        moved = [of[i] for i in other_topics(units, self.settings.seed)]
        found = {
            ADAPTER: ("greedy label of the description", of),
            SHUFFLED: ("the floor: the adapter's label of another topic's description", moved),
            NAMED: ("the positive control: the prompt names it", read(NAMED, own.words, by_name)),
        }
        names = [one.title for one in self._training]
        for reader in untrained_readers(self.model, training, names, self.settings.seed):
            found[reader.name] = reader.meaning, read(reader.name, reader.words, vectors)
        return found

    def _judged(self, labels: Sequence[str]) -> dict[str, np.ndarray]:
        """[descriptions] of 0 and 1 for each of `MEASURES`."""
        pairs = list(zip(labels, self._described, strict=True))
        verdicts = np.array([judge(label, one.topic) for label, one in pairs])
        words = np.array([repeated(label, one.text) for label, one in pairs], dtype=np.float64)
        values = (
            verdicts == "right",
            np.isin(verdicts, ("right", "related")),
            words[:, 0],
            words[:, 1],
        )
        return {
            name: np.asarray(value, dtype=np.float64)
            for name, value in zip(MEASURES, values, strict=True)
        }

    def _block(
        self,
        layer: int,
        labels: Mapping[str, tuple[str, list[str]]],
        judged: Mapping[str, Mapping[str, np.ndarray]],
    ) -> dict[str, Any]:
        seed, own = self.settings.seed, judged[ADAPTER]
        pairs = [
            comparison(
                ADAPTER,
                other,
                measure,
                paired(own[measure], judged[other][measure], seed=seed),
                layer=layer,
            )
            for other in judged
            if other not in (ADAPTER, NAMED)
            for measure in MEASURES
        ]
        names_or_repeats = paired(own["names it"], own["repeats a word"], seed=seed)
        pairs.append(
            comparison(
                NAMES_IT,
                f"{ADAPTER}: repeats a word",
                EITHER,
                names_or_repeats,
                layer=layer,
            )
        )
        return {
            "layer": layer,
            "conditions": [
                {
                    "condition": name,
                    "meaning": meaning,
                    "different_labels": len(set(texts)),
                    "share": {
                        measure: asdict(share_interval(judged[name][measure]))
                        for measure in MEASURES
                    },
                }
                for name, (meaning, texts) in labels.items()
            ],
            "comparisons": pairs,
        }

    def _rows(
        self,
        layer: int,
        labels: Mapping[str, tuple[str, list[str]]],
        judged: Mapping[str, Mapping[str, np.ndarray]],
    ) -> Iterator[dict[str, Any]]:
        for name, (_, texts) in labels.items():
            for i, (text, one) in enumerate(zip(texts, self._described, strict=True)):
                yield {
                    "layer": layer,
                    "condition": name,
                    "name": one.topic.title,
                    "description": one.text,
                    "label": text,
                    **{measure: bool(judged[name][measure][i]) for measure in MEASURES},
                }

    @classmethod
    def report(cls, results: Mapping[str, Any]) -> Iterator[Table | str]:
        counts = results["counts"]
        for block in results["blocks"]:
            yield Table(
                f"block {block['layer']}, {counts['descriptions']} descriptions without the name "
                "(%, 95 % intervals)",
                ["labels", *MEASURES],
                [
                    [one["condition"], *(percent(one["share"][measure]) for measure in MEASURES)]
                    for one in block["conditions"]
                ],
                bold={ADAPTER},
            )
            # One condition against the others, then what its labels do rather.
            for one in (ADAPTER, NAMES_IT):
                pairs = [pair for pair in block["comparisons"] if pair["first"] == one]
                title = f"block {block['layer']}, compared"
                yield from difference_tables(pairs, COMPARED, title)
