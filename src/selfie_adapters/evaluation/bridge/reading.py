"""Does any state of a question name its bridge? Labels of layers × tokens, matched by alias."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from selfie_adapters.adapters import Adapter
from selfie_adapters.dataset.captured import Captured
from selfie_adapters.errors import ConfigError, DataError, PromptError
from selfie_adapters.evaluation.bridge.entities import names_entity, unnamed
from selfie_adapters.inference.sampling import Sampling, row_seed
from selfie_adapters.labelling import Label, Labeller
from selfie_adapters.model import FrozenModel
from selfie_adapters.model.prefix import common_length
from selfie_adapters.model.tokens import encode
from selfie_adapters.model.user_text import Chat, as_chat
from selfie_adapters.reading.means import ReadingMeans
from selfie_adapters.reading.plan import ReadingPlan, plan_reading, prompt_ids
from selfie_adapters.reading.read import read_states
from selfie_adapters.sources.twohop import TwoHopQuestion

_EXAMPLES = 5


@dataclass(frozen=True)
class QuestionPlan:
    """The cells of one question, and which aliases count.

    last: position of the question's last token; what follows belongs to the chat format. aliases:
    the bridge's, without those that occur in the question itself.
    """

    question: TwoHopQuestion
    plan: ReadingPlan
    last: int
    aliases: tuple[str, ...]

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
    start, last, count = _where(model, prefix, question.prompt, chat)
    if first is not None:
        if first >= count:
            raise ConfigError(
                f"first_position is {first}; the prompt of question {question.uid} has {count} "
                "tokens, numbered from 0."
            )
        start = first
    plan = plan_reading(model, prefix + question.prompt, layers, range(start, count), chat)
    aliases = question.bridge.aliases
    return QuestionPlan(
        question, plan, last, aliases if echoes else unnamed(question.prompt, aliases)
    )


def question_states(model: FrozenModel, one: QuestionPlan, means: ReadingMeans | None) -> Tensor:
    """States at the plan's cells, [layers, positions, d_model], the layers' means subtracted.

    Raises DataError for NaN or infinity.
    """
    pieces = [states for _, states in read_states(model, one.plan)]
    states = torch.cat(pieces, dim=1)
    if not bool(states.isfinite().all()):
        raise DataError(
            f"question {one.question.uid}: the model's states hold NaN or infinity. Load the model "
            "with another dtype (dtype: bfloat16 or float32)."
        )
    return states if means is None else states - means.at(one.plan.positions, len(one.plan.tokens))


def write_labels(
    labeller: Labeller, states: Tensor, one: QuestionPlan, how: StateSampling, scale: float = 1.0
) -> list[list[list[str]]]:
    """Labels of every state: layers × positions × samples."""
    names = [
        (one.question.uid, layer, position)
        for layer in one.plan.layers
        for position in one.plan.positions
    ]
    answers = labeller.label(
        states.flatten(0, 1),
        (scale,),
        how.samples,
        how.sampling,
        seed=how.seed,
        batch_size=how.batch_size,
        names=names,
    )
    texts = [how.text_of(label) for labels in answers for label in labels]
    return in_cells(texts, one, how.samples)


def in_cells(labels: Sequence[str], one: QuestionPlan, samples: int) -> list[list[list[str]]]:
    """A flat list of labels as layers × positions × samples."""
    width = len(one.plan.positions)
    cells = [list(labels[i : i + samples]) for i in range(0, len(labels), samples)]
    return [cells[i : i + width] for i in range(0, len(cells), width)]


def count_hits(labels: list[list[list[str]]], aliases: Sequence[str]) -> list[list[int]]:
    """How many labels of each state name the entity: layers × positions."""
    return [[sum(names_entity(t, aliases) for t in cell) for cell in row] for row in labels]


def examples(
    labels: list[list[list[str]]], aliases: Sequence[str], one: QuestionPlan
) -> list[dict[str, object]]:
    """A few labels that name the entity, with their layer and position."""
    found: list[dict[str, object]] = []
    for layer, row in zip(one.plan.layers, labels, strict=True):
        for position, cell in zip(one.plan.positions, row, strict=True):
            hit = next((text for text in cell if names_entity(text, aliases)), None)
            if hit is not None:
                found.append({"layer": layer, "position": position, "label": hit})
    return found[:: max(1, len(found) // _EXAMPLES)][:_EXAMPLES]


def _where(model: FrozenModel, prefix: str, prompt: str, chat: Chat) -> tuple[int, int, int]:
    """The question's first and last token in the prompt, and how many tokens that has."""
    tokenizer = model.tokenizer
    text = as_chat(tokenizer, prefix + prompt, chat)
    at = text.rfind(prompt)
    if at < 0:
        raise PromptError(
            f"the chat template of {model.name} changes the question, so its tokens cannot be "
            "found. Read it with chat: bare or none."
        )
    ids, whole = encode(tokenizer, text), prompt_ids(tokenizer, prefix + prompt, chat)
    begin = len(whole) - len(ids)  # a begin-of-text token that plain strings get
    before = encode(tokenizer, text[:at])
    until = encode(tokenizer, text[: at + len(prompt)])
    start = common_length([ids, before], len(before))
    last = common_length([ids, until], len(until)) - 1
    return begin + start, begin + max(start, last), len(whole)


def other_questions(plans: Sequence[QuestionPlan], seed: int) -> list[QuestionPlan | None]:
    """For each question another whose bridge shares no alias with it; None where there is none.

    The other's bridge must have an alias that does not occur in the question.
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


class ZeroLabels:
    """Labels of the zero vector: one sequence of samples, the same for every question."""

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
