"""The bridge protocol: is the entity that a two-hop question runs over read from its states?

Every question is read at layers × tokens with several labels per state; it counts as decoded if any
of them names the bridge by an alias that is not in the question. The controls read the same cells
as often: another question's bridge, the zero vector, random directions, no adapter.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from selfie_adapters.adapters import load_adapter
from selfie_adapters.adapters.locating import find_adapter_file
from selfie_adapters.config.evaluation.bridge import BridgeSettings
from selfie_adapters.dataset.controls import random_vectors
from selfie_adapters.errors import DataError
from selfie_adapters.evaluation.base import Protocol, Table, percent
from selfie_adapters.evaluation.bridge.entities import unnamed
from selfie_adapters.evaluation.bridge.questions import (
    chosen_questions,
    known_questions,
    questions_digest,
)
from selfie_adapters.evaluation.bridge.reading import (
    QuestionPlan,
    StateSampling,
    ZeroLabels,
    count_hits,
    examples,
    in_cells,
    other_questions,
    plan_question,
    question_chat,
    question_states,
    write_labels,
)
from selfie_adapters.evaluation.bridge.results import TRAINED, BridgeRow, summarize
from selfie_adapters.evaluation.controls import Condition, Untrained
from selfie_adapters.evaluation.folder import file_hashes
from selfie_adapters.evaluation.published.bridge import read_bridge_config
from selfie_adapters.inference.sampling import Sampling, row_seed
from selfie_adapters.labelling import Labeller
from selfie_adapters.labelling.centering import mean_layers
from selfie_adapters.model import FrozenModel, SoftPrompt
from selfie_adapters.model.prompt import ANSWER, QUESTION
from selfie_adapters.model.user_text import Chat, as_chat
from selfie_adapters.reading.means import read_means

ZERO, RANDOM, UNTRAINED = "zero vector", "random directions", "untrained × {:g}"


@dataclass(frozen=True)
class BridgeCondition:
    """A condition with what labels its states."""

    condition: Condition
    labeller: Labeller
    scale: float = 1.0

    @property
    def name(self) -> str:
        return self.condition.name


class Bridge(Protocol[BridgeSettings]):
    """One row per condition and question in rows.jsonl; the first condition is evaluated."""

    settings_class = BridgeSettings
    row = BridgeRow
    read_published = staticmethod(read_bridge_config)
    free = ("batch_size",)

    def inputs(self) -> dict[str, str]:
        settings = self.settings
        self._questions = chosen_questions(settings)
        files = {"adapter_sha256": None, "mean_sha256": settings.mean}
        self._adapter = None
        if settings.adapter is not None:
            files["adapter_sha256"] = find_adapter_file(settings.adapter)
            self._adapter = load_adapter(files["adapter_sha256"])
        self._format: Chat = settings.chat or question_chat(self._adapter, settings.mean)
        # The chat format is recorded as it is used.
        self.settings = settings.model_copy(update={"chat": self._format})
        return {"questions_sha256": questions_digest(self._questions), **file_hashes(files)}

    def measure(self) -> dict[str, Any]:
        """Raises DataError if no question is left."""
        settings, model = self.settings, self.model
        conditions = list(self._conditions())
        known, counts = known_questions(settings, self._questions, self._answerer, self.progress)
        layers = settings.layers
        if layers is None and settings.mean is not None:
            layers = mean_layers(settings.mean)
        plans = [
            plan_question(
                model,
                question,
                layers,
                self._format,
                settings.question_prefix,
                settings.first_position,
                settings.echoes,
            )
            for question in known
        ]
        plans = [one for one in plans if one.aliases]
        counts["left out: every alias stands in the question"] = len(known) - len(plans)
        if not plans:
            raise DataError(
                f"{settings.questions}: of {len(self._questions)} questions none is left "
                f"({counts}). Give others, or only_answered: false."
            )
        counts["read"] = len(plans)
        counts["read that name the bridge by another alias"] = sum(p.names_bridge for p in plans)
        self._read_all(conditions, plans)
        uids = [one.question.uid for one in plans]
        return {
            "counts": counts,
            "interval": "95 %, bootstrap over questions",
            **summarize(self.folder.rows, uids, settings.seed, conditions[0].name),
        }

    def _conditions(self) -> Iterator[BridgeCondition]:
        """The evaluated one first: the adapter's, or without an adapter the first scale's."""
        settings, model, adapter = self.settings, self.model, self._adapter
        prompt = None
        if settings.prompt == "chat_template" and (adapter is None or adapter.binding is None):
            prompt = _whole_chat(model)
        if adapter is not None:
            labeller = Labeller(model, adapter, prompt)
            prompt = labeller.prompt.prompt
            yield BridgeCondition(Condition(TRAINED, f"adapter {settings.adapter}"), labeller)
            if settings.random:
                meaning = "Gaussian directions with the states' norms"
                yield BridgeCondition(Condition(RANDOM, meaning, reads="random"), labeller)
        untrained = Untrained(model, settings.untrained_scale_unit)
        plain = untrained.labeller(prompt)
        for scale in settings.untrained_scales:
            name = UNTRAINED.format(scale)
            condition = Condition(name, untrained.meaning(scale), through="untrained")
            yield BridgeCondition(condition, plain, scale)

    def _answerer(self) -> Any:
        return self.chat(self.settings.answerer, self.model)

    def _read_all(
        self, conditions: Sequence[BridgeCondition], plans: Sequence[QuestionPlan]
    ) -> None:
        """One row per condition and question; those that are there are not read again."""
        settings, folder = self.settings, self.folder
        labeller, lead = conditions[0].labeller, conditions[0].name
        model = labeller.model
        how = self._sampling(model)
        means = None
        if settings.mean is not None:
            means = read_means(settings.mean, plans[0].plan.layers, model.d_model)
        partners = other_questions(plans, settings.seed)
        total = (len(conditions) + 1) * len(plans)
        zero = ZeroLabels(labeller, how)
        for one, partner in zip(plans, partners, strict=True):
            for name in [*(c.name for c in conditions), ZERO]:
                self._check_row(row_key(name, one), one, how.samples, trained=name == TRAINED)
            missing = [c for c in conditions if row_key(c.name, one) not in folder.rows]
            states = question_states(model, one, means) if missing else torch.empty(0)
            for condition in missing:
                self.progress(condition.name, len(folder.rows), total)
                read = states
                if condition.condition.reads == "random":
                    seed = row_seed(settings.seed, "random", one.question.uid)
                    read = random_vectors(states.flatten(0, 1), seed).view_as(states)
                labels = write_labels(condition.labeller, read, one, how, condition.scale)
                row = {"meaning": condition.condition.meaning, **_row(labels, one)}
                if condition.name == lead:
                    row |= _lead_facts(one, labels, partner)
                    if settings.keep_labels:
                        row["texts"] = labels
                folder.add(row_key(condition.name, one), row)
            if row_key(ZERO, one) not in folder.rows:
                self.progress(ZERO, len(folder.rows), total)
                labels = in_cells(zero.first(one.plan.n_cells * how.samples), one, how.samples)
                alone = "the adapter's bias alone" if lead == TRAINED else "the zero vector alone"
                meaning = f"{alone}, sampled as often"
                folder.add(row_key(ZERO, one), {"meaning": meaning, **_row(labels, one)})
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
        """Raise DataError if the row under `key` is there and is not of this question's states."""
        if (row := self.folder.rows.get(key)) is None:
            return
        damaged = self.folder.damaged
        layers, positions = list(one.plan.layers), list(one.plan.positions)
        grids = [row["hits"], row.get("shuffled_hits", row["hits"])]
        if any(list(map(len, grid)) != [len(positions)] * len(layers) for grid in grids):
            raise damaged(key, "does not have one count per layer and position")
        if row["labels"] != len(layers) * len(positions) * samples:
            raise damaged(key, f"has {row['labels']} labels, which the settings do not make")
        if trained and (row.get("layers"), row.get("positions")) != (layers, positions):
            raise damaged(key, "is of other layers or positions")
        if trained and not {"names_bridge", "last", "tokens", "prompt", "bridge"} <= row.keys():
            raise damaged(key, "lacks what the heat-maps need")

    @classmethod
    def report(cls, results: Mapping[str, Any]) -> Iterator[Table | str]:
        counts = ", ".join(f"{name} {count}" for name, count in results["counts"].items())
        yield f"questions: {counts}"
        rows = [
            [
                one["condition"],
                percent(one["decoded"], 1),
                percent(one["share_of_labels"], 2),
                percent(results["trained minus"].get(one["condition"]), 1),
            ]
            for one in results["conditions"]
        ]
        yield Table(
            f"bridge decoded, {results['counts']['read']} questions (95 % intervals)",
            ["condition", "somewhere, %", "of labels, %", "trained minus it, points"],
            rows,
            bold={results["lead"]},
        )


def _whole_chat(model: FrozenModel) -> SoftPrompt:
    """The usual question in the tokenizer's chat template, with whatever system text it brings."""
    usual = SoftPrompt.for_tokenizer(model.tokenizer)
    question = as_chat(model.tokenizer, QUESTION.format(usual.placeholder), "template")
    return SoftPrompt(question + ANSWER.format(usual.placeholder), usual.placeholder, usual.end)


def row_key(condition: str, one: QuestionPlan) -> str:
    return f"{condition}/{one.question.uid}"


def _row(labels: list[list[list[str]]], one: QuestionPlan) -> dict[str, Any]:
    return {
        "hits": count_hits(labels, one.aliases),
        "labels": sum(len(cell) for row in labels for cell in row),
        "examples": examples(labels, one.aliases, one),
    }


def _lead_facts(
    one: QuestionPlan, labels: list[list[list[str]]], partner: QuestionPlan | None
) -> dict[str, Any]:
    """What the heat-maps and the shuffled control need in addition to the hits."""
    facts: dict[str, Any] = {
        "prompt": one.question.prompt,
        "bridge": one.question.bridge.value,
        "aliases": list(one.aliases),
        "names_bridge": one.names_bridge,
        "layers": list(one.plan.layers),
        "positions": list(one.plan.positions),
        "last": one.last,
        "tokens": [one.plan.tokens[position].text for position in one.plan.positions],
    }
    if partner is not None:
        aliases = unnamed(one.question.prompt, partner.question.bridge.aliases)
        facts["shuffled_hits"] = count_hits(labels, aliases)
        facts["shuffled_bridge"] = partner.question.bridge.value
    return facts
