"""The bridge protocol: is the entity that a two-hop question runs over read from its states?

Every question is read at layers × tokens with several labels a state; it counts as decoded if any
of them names the bridge by an alias that does not stand in the question. The controls read the same
cells as often: another question's bridge, the zero vector, random directions, no adapter.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from selfie_adapters.adapters import load_adapter
from selfie_adapters.adapters.locating import find_adapter_file
from selfie_adapters.chat import ChatModel
from selfie_adapters.config.evaluation.bridge import BridgeSettings
from selfie_adapters.dataset.controls import random_vectors
from selfie_adapters.errors import DataError
from selfie_adapters.evaluation.bridge.conditions import BridgeCondition, bridge_conditions
from selfie_adapters.evaluation.bridge.entities import unnamed
from selfie_adapters.evaluation.bridge.questions import (
    chosen_questions,
    known_questions,
    questions_digest,
)
from selfie_adapters.evaluation.bridge.reading import (
    QuestionPlan,
    StateSampling,
    count_hits,
    examples,
    in_cells,
    plan_question,
    question_chat,
    question_states,
    write_labels,
)
from selfie_adapters.evaluation.bridge.results import TRAINED, BridgeRow, summarise
from selfie_adapters.evaluation.folder import EvaluationFolder
from selfie_adapters.evaluation.spoken_labels import Progress, silent
from selfie_adapters.files import sha256
from selfie_adapters.inference.sampling import Sampling, row_seed
from selfie_adapters.labelling import Labeller
from selfie_adapters.labelling.centring import mean_layers
from selfie_adapters.model import FrozenModel, load_model
from selfie_adapters.model.fingerprint import weights_digest
from selfie_adapters.reading.means import read_means
from selfie_adapters.sources.twohop import read_twohop

ZERO = "zero vector"
_FREE = ("batch_size",)


def run_bridge(
    settings: BridgeSettings,
    folder: str | Path,
    model: FrozenModel | None = None,
    chat: ChatModel | None = None,
    progress: Progress = silent,
) -> Path:
    """Run the protocol, or go on with it; returns the path of results.json.

    model and chat may be open already. Raises what reading the inputs raises; DataError if no
    question is left; ConfigError if the folder holds another evaluation.
    """
    questions = chosen_questions(settings, read_twohop(settings.questions))
    inputs = {"questions_sha256": questions_digest(questions)}
    adapter = None
    if settings.adapter is not None:
        adapter_file = find_adapter_file(settings.adapter)
        inputs["adapter_sha256"] = sha256(adapter_file)
        adapter = load_adapter(adapter_file)
    if settings.mean is not None:
        inputs["mean_sha256"] = sha256(settings.mean)
    asked = settings.chat or question_chat(adapter, settings.mean)
    settings = settings.model_copy(update={"chat": asked})  # recorded as it is used
    kept = EvaluationFolder(folder, "bridge", settings, inputs, _FREE, BridgeRow)
    model = model or load_model(settings.model, settings.dtype, settings.device)
    kept.also_depends_on("model_weights", weights_digest(model))
    conditions = list(bridge_conditions(settings, model, adapter))
    known, counts = known_questions(settings, questions, kept, model, chat, progress)
    layers = settings.layers
    if layers is None and settings.mean is not None:
        layers = mean_layers(settings.mean)
    plans = [
        plan_question(
            model,
            question,
            layers,
            asked,
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
            f"{settings.questions}: of {len(questions)} questions none is left ({counts}). Give "
            "others, or only_answered: false."
        )
    counts["read"] = len(plans)
    counts["read that name the bridge by another alias"] = sum(p.names_bridge for p in plans)
    _read_all(settings, kept, conditions, plans, progress)
    return kept.finish(
        {
            "counts": counts,
            "interval": "95 %, bootstrap over questions",
            **summarise(
                kept.rows, [one.question.uid for one in plans], settings.seed, conditions[0].name
            ),
        }
    )


def _read_all(
    settings: BridgeSettings,
    kept: EvaluationFolder,
    conditions: Sequence[BridgeCondition],
    plans: Sequence[QuestionPlan],
    progress: Progress,
) -> None:
    """One row a condition and question; those that are there are not read again."""
    labeller, lead = conditions[0].labeller, conditions[0].name
    how = StateSampling(
        settings.samples,
        Sampling(
            settings.temperature,
            _top_p(labeller.model) if settings.top_p is None else settings.top_p,
            max_new_tokens=settings.max_new_tokens,
            stop_at_quote=settings.match != "whole_text",
        ),
        settings.seed,
        settings.batch_size,
    )
    means = None
    if settings.mean is not None:
        means = read_means(settings.mean, plans[0].plan.layers, labeller.model.d_model)
    partners = other_questions(plans, settings.seed)
    wanted = [c.name for c in conditions] + [ZERO]
    total = len(wanted) * len(plans)
    zero = _ZeroLabels(labeller, how)
    for one, partner in zip(plans, partners, strict=True):
        for name in wanted:
            _check_row(kept, row_key(name, one), one, how.samples, trained=name == TRAINED)
        missing = [c for c in conditions if row_key(c.name, one) not in kept.rows]
        states = question_states(labeller.model, one, means) if missing else torch.empty(0)
        for condition in missing:
            progress(condition.name, len(kept.rows), total)
            read = states
            if condition.random:
                seed = row_seed(settings.seed, "random", one.question.uid)
                read = random_vectors(states.flatten(0, 1), seed).view_as(states)
            labels = write_labels(condition.labeller, read, one, how, condition.scale)
            row = {"meaning": condition.meaning, **_row(labels, one)}
            if condition.name == lead:
                row |= _lead_facts(one, labels, partner)
                if settings.keep_labels:
                    row["texts"] = labels
            kept.add(row_key(condition.name, one), row)
        if row_key(ZERO, one) not in kept.rows:
            progress(ZERO, len(kept.rows), total)
            labels = in_cells(zero.first(one.plan.n_cells * how.samples), one, how.samples)
            alone = "the adapter's bias alone" if lead == TRAINED else "the zero vector alone"
            meaning = f"{alone}, sampled as often"
            kept.add(row_key(ZERO, one), {"meaning": meaning, **_row(labels, one)})
    progress("read", total, total)


def _check_row(
    kept: EvaluationFolder, key: str, one: QuestionPlan, samples: int, trained: bool
) -> None:
    """Raise DataError if the row under `key` is there and is not of this question's states."""
    if (row := kept.rows.get(key)) is None:
        return
    layers, positions = list(one.plan.layers), list(one.plan.positions)
    grids = [row["hits"], row.get("shuffled_hits", row["hits"])]
    if any(list(map(len, grid)) != [len(positions)] * len(layers) for grid in grids):
        raise kept.damaged(key, "does not have one count per layer and position")
    if row["labels"] != len(layers) * len(positions) * samples:
        raise kept.damaged(key, f"has {row['labels']} labels, which the settings do not make")
    if trained and (row.get("layers"), row.get("positions")) != (layers, positions):
        raise kept.damaged(key, "is of other layers or positions")
    if trained and not {"names_bridge", "last", "tokens", "prompt", "bridge"} <= row.keys():
        raise kept.damaged(key, "lacks what the heat-maps need")


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
    """What the heat-maps and the shuffled control need, beside the hits."""
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


def other_questions(plans: Sequence[QuestionPlan], seed: int) -> list[QuestionPlan | None]:
    """For each question another whose bridge shares no alias with it; None where there is none.

    The other's bridge must have an alias that does not stand in the question.
    """
    generator = torch.Generator().manual_seed(row_seed(seed, "partners"))
    order = torch.randperm(len(plans), generator=generator).tolist()
    place = {number: at for at, number in enumerate(order)}
    names = [{alias.casefold() for alias in one.question.bridge.aliases} for one in plans]
    found: list[QuestionPlan | None] = []
    for number, one in enumerate(plans):
        turn = (order[(place[number] + step) % len(order)] for step in range(1, len(order)))
        fitting = (
            plans[other]
            for other in turn
            if not names[other] & names[number]
            and unnamed(one.question.prompt, plans[other].question.bridge.aliases)
        )
        found.append(next(fitting, None))
    return found


class _ZeroLabels:
    """Labels of the zero vector: one stream of draws, read from its start by every question."""

    def __init__(self, labeller: Labeller, how: StateSampling) -> None:
        self._labeller, self._how = labeller, how
        self._drawn: list[str] = []

    def first(self, count: int) -> list[str]:
        how, start = self._how, len(self._drawn)
        if count > start:
            zeros: Tensor = torch.zeros(count - start, self._labeller.model.d_model)
            answers = self._labeller.label(
                zeros,
                sampling=how.sampling,
                seed=how.seed,
                batch_size=how.batch_size,
                names=[("zero", i) for i in range(start, count)],
            )
            self._drawn += [how.text_of(labels[0]) for labels in answers]
        return self._drawn[:count]


def _top_p(model: FrozenModel) -> float:
    """What the model's own generation settings state; 1 changes nothing."""
    return float(getattr(model.network.generation_config, "top_p", None) or 1.0)
