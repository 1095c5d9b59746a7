"""Does any state of a question name its bridge? Labels of layers × tokens, matched by alias."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from selfie_adapters.adapters import Adapter
from selfie_adapters.adapters.specialists import Place
from selfie_adapters.config.shared import Sampling
from selfie_adapters.dataset.captured import Captured
from selfie_adapters.errors import ConfigError, PromptError
from selfie_adapters.evaluation.bridge.entities import names_entity, unnamed
from selfie_adapters.labelling import Label, Labeller
from selfie_adapters.model import FrozenModel
from selfie_adapters.model.prefix import common_length
from selfie_adapters.model.tokens import encode
from selfie_adapters.model.user_text import Chat, as_chat
from selfie_adapters.reading.answers import place_of
from selfie_adapters.reading.plan import ReadingPlan, plan_reading, prompt_ids
from selfie_adapters.sources.twohop import TwoHopQuestion

_EXAMPLES = 5
Grid = list[list[list[str]]]
"""Labels of a question's states: layers × positions × samples."""


@dataclass(frozen=True)
class QuestionPlan:
    """The cells of one question, and which aliases count.

    first, last: positions of the question's first and last token; what follows belongs to the chat
    format. aliases: the bridge's, without those that occur in the question itself. entity:
    positions of the first and last token of e1; None where the question does not contain it.
    """

    question: TwoHopQuestion
    plan: ReadingPlan
    first: int
    last: int
    aliases: tuple[str, ...]
    entity: tuple[int, int] | None

    @property
    def names_bridge(self) -> bool:
        """Whether the question's own words name the bridge by any of its aliases."""
        return len(self.aliases) < len(self.question.bridge.aliases)


@dataclass(frozen=True)
class StateSampling:
    """How the labels of a state are sampled; seeds are made of question, position and `seed`."""

    samples: int
    sampling: Sampling
    seed: int
    batch_size: int

    def text_of(self, label: Label) -> str:
        """What is searched for a name: all of the answer, where it does not end at its quote."""
        return label.text if self.sampling.stop_at_quote else label.raw.strip()


def question_chat(adapter: Adapter | None, mean: str | None) -> Chat:
    """The chat format that the adapter's training vectors were captured in, else the mean's."""
    trained = Captured.by_binding(adapter.binding if adapter else None).chat
    centered = Captured.by_mean_file(mean).chat if mean is not None else None
    return trained or centered or "template"


def plan_question(
    model: FrozenModel,
    question: TwoHopQuestion,
    layers: Sequence[int] | str | None,
    chat: Chat,
    prefix: str = "",
    first: int | None = None,
    echoes: bool = False,
) -> QuestionPlan:
    """Cells from the question's first token to the prompt's last. Raises PromptError, ConfigError.

    The prompt is the question after `prefix`, without the example that precedes it when it is
    asked. first: another first token. echoes: names that occur in the question count too.
    """
    where = _where(model, prefix, question, chat)
    start, count = where.first, where.count
    if first is not None:
        if first >= count:
            raise ConfigError(
                f"first_position is {first}; the prompt of question {question.uid} has {count} "
                "tokens, numbered from 0."
            )
        start = first
    plan = plan_reading(model, prefix + question.prompt, layers, range(start, count), chat)
    aliases = question.bridge.aliases
    counted = aliases if echoes else unnamed(question.prompt, aliases)
    return QuestionPlan(question, plan, where.first, where.last, counted, where.entity)


def write_labels(
    labeller: Labeller, states: Tensor, one: QuestionPlan, how: StateSampling, scale: float = 1.0
) -> Grid:
    """Labels of every state [layers, positions, d_model]: layers × positions × samples.

    An adapter with specialists labels each state with the one for its block and position.
    """
    names = [(one.question.uid, *cell) for cell in cells_of(one)]
    answers = labeller.label(
        states.flatten(0, 1),
        (scale,),
        how.samples,
        how.sampling,
        seed=how.seed,
        batch_size=how.batch_size,
        names=names,
        places=places_of(labeller, one),
    )
    texts = [how.text_of(label) for labels in answers for label in labels]
    return in_cells(texts, one, how.samples)


def cells_of(one: QuestionPlan) -> list[tuple[int, int]]:
    """(layer, position) of every cell, layer by layer."""
    return [(layer, position) for layer in one.plan.layers for position in one.plan.positions]


def places_of(labeller: Labeller, one: QuestionPlan) -> list[Place]:
    """Block and kind of position of every cell."""
    tokens = len(one.plan.tokens)
    return [place_of(labeller.adapter, *cell, tokens) for cell in cells_of(one)]


def in_cells(labels: Sequence[str], one: QuestionPlan, samples: int) -> Grid:
    """A flat list of labels as layers × positions × samples."""
    width = len(one.plan.positions)
    cells = [list(labels[i : i + samples]) for i in range(0, len(labels), samples)]
    return [cells[i : i + width] for i in range(0, len(cells), width)]


def count_hits(labels: Grid, aliases: Sequence[str]) -> list[list[int]]:
    """How many labels of each state name the entity: layers × positions."""
    return [[sum(names_entity(t, aliases) for t in cell) for cell in row] for row in labels]


def examples(labels: Grid, aliases: Sequence[str], one: QuestionPlan) -> list[dict[str, object]]:
    """A few labels that name the entity, with their layer and position."""
    found: list[dict[str, object]] = []
    for layer, row in zip(one.plan.layers, labels, strict=True):
        for position, cell in zip(one.plan.positions, row, strict=True):
            hit = next((text for text in cell if names_entity(text, aliases)), None)
            if hit is not None:
                found.append({"layer": layer, "position": position, "label": hit})
    return found[:: max(1, len(found) // _EXAMPLES)][:_EXAMPLES]


@dataclass(frozen=True)
class _Where:
    """Positions in the prompt, which has `count` tokens: see QuestionPlan."""

    first: int
    last: int
    count: int
    entity: tuple[int, int] | None


def _where(model: FrozenModel, prefix: str, question: TwoHopQuestion, chat: Chat) -> _Where:
    tokenizer, prompt = model.tokenizer, question.prompt
    text = as_chat(tokenizer, prefix + prompt, chat)
    at = text.rfind(prompt)
    if at < 0:
        raise PromptError(
            f"the chat template of {model.name} changes the question, so its tokens cannot be "
            "found. Read it with chat: bare or none."
        )
    ids, whole = encode(tokenizer, text), prompt_ids(tokenizer, prefix + prompt, chat)
    begin = len(whole) - len(ids)  # a begin-of-text token that plain strings get

    def span(start: int, length: int) -> tuple[int, int]:
        before = encode(tokenizer, text[:start])
        until = encode(tokenizer, text[: start + length])
        first = common_length([ids, before], len(before))
        last = common_length([ids, until], len(until)) - 1
        return begin + first, begin + max(first, last)

    found = prompt.rfind(question.e1) if question.e1 else -1
    entity = span(at + found, len(question.e1)) if found >= 0 else None
    return _Where(*span(at, len(prompt)), len(whole), entity)


class ZeroLabels:
    """Labels of the zero vector: one sequence of samples per map, the same for every question.

    An adapter with specialists is several maps, each with a bias of its own.
    """

    def __init__(self, labeller: Labeller, how: StateSampling) -> None:
        self._labeller, self._how = labeller, how
        self._drawn: dict[Labeller, list[str]] = {}

    def of(self, one: QuestionPlan) -> Grid:
        """As many as the question's states have."""
        labellers = [self._labeller.at(*place) for place in places_of(self._labeller, one)]
        samples = self._how.samples
        streams = {
            labeller: iter(self._first(labeller, labellers.count(labeller) * samples))
            for labeller in dict.fromkeys(labellers)
        }
        texts = [next(streams[labeller]) for labeller in labellers for _ in range(samples)]
        return in_cells(texts, one, samples)

    def _first(self, labeller: Labeller, count: int) -> list[str]:
        how, drawn = self._how, self._drawn.setdefault(labeller, [])
        start = len(drawn)
        if count > start:
            zeros: Tensor = torch.zeros(count - start, labeller.model.d_model)
            answers = labeller.label(
                zeros,
                sampling=how.sampling,
                seed=how.seed,
                batch_size=how.batch_size,
                names=[("zero", i) for i in range(start, count)],
            )
            drawn += [how.text_of(labels[0]) for labels in answers]
        return drawn[:count]
