"""The bridge protocol: is the entity that a two-hop question runs over read from its states?

Every question is read at layers × tokens with several labels per state; it counts as decoded if any
of them names the bridge by an alias that is not in the question. The controls read the same cells
as often: the zero vector, random directions, no adapter, and the tokens of logit lens, cosine and
ridge probe. The same labels are matched with the entities of other questions of the category, which
is the base rate, with names that begin alike, which is the spelling control, and with the entity
that is in the question, which is the positive control (`targets`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from selfie_adapters.adapters import load_adapter
from selfie_adapters.adapters.locating import find_adapter_file, find_mean_file
from selfie_adapters.adapters.specialists import adapter_digest
from selfie_adapters.config.evaluation.bridge import BridgeSettings
from selfie_adapters.config.shared import Sampling
from selfie_adapters.dataset import load_dataset
from selfie_adapters.errors import ConfigError, DataError
from selfie_adapters.evaluation.base import Protocol
from selfie_adapters.evaluation.baselines import TokenBaseline, not_measured, untrained_readers
from selfie_adapters.evaluation.bridge.probes import BlockProbes
from selfie_adapters.evaluation.bridge.questions import (
    chosen_questions,
    known_questions,
    questions_digest,
)
from selfie_adapters.evaluation.bridge.readers import (
    RANDOM,
    ZERO,
    CellReader,
    SoftTokenCellReader,
    TokenCellReader,
    ZeroReader,
)
from selfie_adapters.evaluation.bridge.reading import (
    Grid,
    QuestionPlan,
    StateSampling,
    ZeroLabels,
    examples,
    plan_question,
    question_chat,
)
from selfie_adapters.evaluation.bridge.results import TRAINED, BridgeRow, summarize
from selfie_adapters.evaluation.bridge.states import (
    OF_QUESTIONS,
    Means,
    MeansOfFile,
    MeansOfQuestions,
    NoMeans,
    question_states,
)
from selfie_adapters.evaluation.bridge.tables import report
from selfie_adapters.evaluation.bridge.targets import BRIDGE, Targets
from selfie_adapters.evaluation.controls import Untrained
from selfie_adapters.evaluation.folder import dataset_hash, file_hashes
from selfie_adapters.evaluation.published.bridge import read_bridge_config
from selfie_adapters.evaluation.tables import Table
from selfie_adapters.labelling import Labeller
from selfie_adapters.labelling.centering import mean_layers
from selfie_adapters.model import FrozenModel, SoftPrompt
from selfie_adapters.model.prompt import ANSWER, QUESTION
from selfie_adapters.model.user_text import Chat, as_chat
from selfie_adapters.reading.means import read_means
from selfie_adapters.sources.twohop import TwoHopQuestion

UNTRAINED = "untrained × {:g}"


class Bridge(Protocol[BridgeSettings]):
    """One row per condition and question in rows.jsonl; the first condition is evaluated."""

    settings_class = BridgeSettings
    row = BridgeRow
    read_published = staticmethod(read_bridge_config)
    free = ("batch_size",)

    def inputs(self) -> dict[str, str]:
        settings = self.settings
        self._questions = chosen_questions(settings)
        digests, files = {}, {}
        self._adapter, adapter_file = None, None
        if settings.adapter is not None:
            adapter_file = find_adapter_file(settings.adapter)
            digests["adapter_sha256"] = adapter_digest(adapter_file)
            self._adapter = load_adapter(adapter_file)
        own = find_mean_file(None, adapter_file)
        self._mean_file = own
        if settings.mean not in (None, OF_QUESTIONS):
            self._mean_file = files["mean_sha256"] = find_mean_file(settings.mean, None)
        elif settings.mean is None and own is not None:
            files["mean_sha256"] = own
        self._format: Chat = settings.chat or question_chat(self._adapter, self._mean_file)
        # The chat format is recorded as it is used.
        self.settings = settings.model_copy(update={"chat": self._format})
        self._training = None
        if settings.training_file is not None:
            self._training = load_dataset(settings.training_file)
            digests["training_file"] = dataset_hash(self._training)
        questions = {"questions_sha256": questions_digest(self._questions)}
        return {**questions, **digests, **file_hashes(files)}

    def measure(self) -> dict[str, Any]:
        """Raises DataError if no question is left."""
        settings = self.settings
        self._baselines = self._without_question()
        readers = list(self._readers())
        known, counts = known_questions(settings, self._questions, self._answerer, self.progress)
        plans = [self._planned(question) for question in known]
        plans = [one for one in plans if one.aliases]
        counts["left out: every alias stands in the question"] = len(known) - len(plans)
        if not plans:
            raise DataError(
                f"{settings.questions}: of {len(self._questions)} questions none can be "
                f"used ({counts}). Give other questions, or set only_answered: false."
            )
        counts["read"] = len(plans)
        counts["distinct bridges"] = len({one.question.bridge.value for one in plans})
        counts["read that name the bridge by another alias"] = sum(p.names_bridge for p in plans)
        self._read_all(readers, plans)
        uids = [one.question.uid for one in plans]
        missing = not_measured([reader.name for reader in readers], "no training_file to fit it on")
        return {
            "counts": counts,
            "not_measured": missing if settings.lens else {},
            **summarize(self.folder.rows, uids, settings.seed, readers[0].name),
        }

    def _planned(self, question: TwoHopQuestion) -> QuestionPlan:
        settings, layers = self.settings, self.settings.layers
        if layers is None and self._mean_file is not None:
            layers = mean_layers(self._mean_file)
        return plan_question(
            self.model,
            question,
            layers,
            self._format,
            settings.question_prefix,
            settings.first_position,
            settings.echoes,
        )

    def _readers(self) -> Iterator[CellReader]:
        """The evaluated one first: the adapter's, or without an adapter the first scale's."""
        settings, model, adapter = self.settings, self.model, self._adapter
        how = self._sampling(model)
        prompt = first = None
        if settings.prompt == "chat_template" and (adapter is None or adapter.binding is None):
            prompt = _whole_chat(model)
        if adapter is not None:
            first = Labeller(model, adapter, prompt)
            prompt = first.prompt.prompt
            yield SoftTokenCellReader(TRAINED, f"adapter {settings.adapter}", first, how)
            if settings.random:
                meaning = "Gaussian directions with the states' norms"
                yield SoftTokenCellReader(RANDOM, meaning, first, how, random=True)
        untrained = Untrained(model, settings.untrained_scale_unit)
        plain = untrained.labeller(prompt)
        for scale in settings.untrained_scales:
            name = UNTRAINED.format(scale)
            yield SoftTokenCellReader(name, untrained.meaning(scale), plain, how, scale)
        for baseline in self._baselines:
            yield TokenCellReader(model, baseline, how.samples)
        alone = "the zero vector" if first is None else "the adapter's bias"
        yield ZeroReader(ZERO, f"{alone} alone, sampled as often", ZeroLabels(first or plain, how))

    def _without_question(self) -> list[TokenBaseline | BlockProbes]:
        """Readers that answer with tokens. Raises DataError for a training file of other blocks."""
        settings, model = self.settings, self.model
        found: list[TokenBaseline | BlockProbes] = []
        if settings.lens:
            found += untrained_readers(model, torch.empty(0, model.d_model), [])
        if self._training is not None and settings.training_file is not None:
            self.check_width(self._training, settings.training_file)
            probes = BlockProbes(model, self._training, settings.training_file, settings.seed)
            probes.places(self._planned(self._questions[0]))  # before anything is read
            found.append(probes)
        return found

    def _answerer(self) -> Any:
        return self.chat(self.settings.answerer, self.model)

    def _means(self, plans: Sequence[QuestionPlan]) -> Means:
        if self.settings.mean == OF_QUESTIONS:
            seed = self.settings.seed
            return MeansOfQuestions(self.model, self._questions, plans, self._planned, seed)
        if self._mean_file is None:
            return NoMeans()
        layers = plans[0].plan.layers
        return MeansOfFile(read_means(self._mean_file, layers, self.model.d_model))

    def _read_all(self, readers: Sequence[CellReader], plans: Sequence[QuestionPlan]) -> None:
        """One row per condition and question; those that are there are not read again."""
        folder, samples = self.folder, self.settings.samples
        keys = [[row_key(reader.name, one) for reader in readers] for one in plans]
        for one, of_question in zip(plans, keys, strict=True):
            for key, reader in zip(of_question, readers, strict=True):
                self._check_row(key, one, samples, trained=reader.name == TRAINED)
        if all(key in folder.rows for of_question in keys for key in of_question):
            return
        means, targets = self._means(plans), Targets(self._questions)
        total = len(readers) * len(plans)
        for one, of_question in zip(plans, keys, strict=True):
            if all(key in folder.rows for key in of_question):
                continue
            states = question_states(self.model, one, means)
            wanted = targets.of(one)
            for key, reader in zip(of_question, readers, strict=True):
                if key in folder.rows:
                    continue
                self.progress(reader.name, len(folder.rows), total)
                labels = reader.labels(states, one)
                found = {role: t.found(labels, reader.matching) for role, t in wanted.items()}
                row = {
                    "meaning": reader.meaning,
                    "hits": found[BRIDGE]["hits"],
                    "labels": sum(len(cell) for cells in labels for cell in cells),
                    "examples": examples(labels, reader.matching(one.aliases), one),
                    "targets": found,
                }
                if reader is readers[0]:
                    row |= _lead_facts(one, labels, self.settings.keep_labels)
                folder.add(key, row)
        self.progress("read", total, total)

    def _sampling(self, model: FrozenModel) -> StateSampling:
        one, top_p = self.settings, self.settings.top_p
        if top_p is None:  # what the model's own generation settings state; 1 changes nothing
            top_p = float(getattr(model.network.generation_config, "top_p", None) or 1.0)
        sampling = Sampling(
            one.temperature,
            top_p,
            max_new_tokens=one.max_new_tokens,
            stop_at_quote=one.match != "whole_text",
        )
        return StateSampling(one.samples, sampling, one.seed, one.batch_size)

    def _check_row(self, key: str, one: QuestionPlan, samples: int, trained: bool) -> None:
        """Raise DataError if the row under `key` is there and is not of this question's states,
        ConfigError if an earlier version wrote it."""
        if (row := self.folder.rows.get(key)) is None:
            return
        damaged = self.folder.damaged
        layers, positions = list(one.plan.layers), list(one.plan.positions)
        if row.get("targets", {}).get(BRIDGE, {}).get("same_start") is None:
            raise ConfigError(
                f"{self.folder.folder}: this folder is from an earlier version, which had "
                "no control for names that begin alike. Give another --out."
            )
        if list(map(len, row["hits"])) != [len(positions)] * len(layers):
            raise damaged(key, "does not have one count per layer and position")
        if any(len(of["hits"]) != len(layers) for of in row["targets"].values()):
            raise damaged(key, "does not have one count per layer")
        if row["labels"] != len(layers) * len(positions) * samples:
            raise damaged(key, f"has {row['labels']} labels, which the settings do not make")
        if trained and (row.get("layers"), row.get("positions")) != (layers, positions):
            raise damaged(key, "is of other layers or positions")
        if trained and not {"names_bridge", "last", "tokens", "prompt", "bridge"} <= row.keys():
            raise damaged(key, "lacks what the heat-maps need")

    @classmethod
    def report(cls, results: Mapping[str, Any]) -> Iterator[Table | str]:
        return report(results)


def _whole_chat(model: FrozenModel) -> SoftPrompt:
    """The usual question in the tokenizer's chat template, with whatever system text it brings."""
    usual = SoftPrompt.for_tokenizer(model.tokenizer)
    question = as_chat(model.tokenizer, QUESTION.format(usual.placeholder), "template")
    return SoftPrompt(question + ANSWER.format(usual.placeholder), usual.placeholder, usual.end)


def row_key(condition: str, one: QuestionPlan) -> str:
    return f"{condition}/{one.question.uid}"


def _lead_facts(one: QuestionPlan, labels: Grid, keep_labels: bool) -> dict[str, Any]:
    """What the results need of a question in addition to the hits of each condition."""
    facts: dict[str, Any] = {
        "prompt": one.question.prompt,
        "bridge": one.question.bridge.value,
        "aliases": list(one.aliases),
        "names_bridge": one.names_bridge,
        "layers": list(one.plan.layers),
        "positions": list(one.plan.positions),
        "last": one.last,
        "entity": None if one.entity is None else list(one.entity),
        "tokens": [one.plan.tokens[position].text for position in one.plan.positions],
    }
    return facts | {"texts": labels} if keep_labels else facts
