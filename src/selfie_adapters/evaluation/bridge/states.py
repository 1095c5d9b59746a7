"""The states of a question, minus a mean: of the file's, or of the other questions like it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from selfie_adapters.errors import DataError
from selfie_adapters.evaluation.bridge.reading import QuestionPlan
from selfie_adapters.inference.generate import row_seed
from selfie_adapters.model import FrozenModel
from selfie_adapters.reading.means import ReadingMeans
from selfie_adapters.reading.read import read_states
from selfie_adapters.sources.twohop import TwoHopQuestion

OF_QUESTIONS = "questions"
"""The value of the setting `mean` that subtracts the other questions' mean."""
_SIBLINGS = 50  # questions of a category that make its means
_FEWEST = 4  # other questions with a state at a token, below which all categories' mean is taken
_NO_DIFFERENCE = 0.01
"""Relative length of a difference that is rounding alone: before the entity, the questions of a
category have the same tokens, hence the same states. Those are read as the zero vector."""

_TokenMatch = tuple[str, int]


class Means(Protocol):
    """What is subtracted from a question's states [layers, positions, d_model]."""

    def centered(self, states: Tensor, one: QuestionPlan) -> Tensor: ...


class NoMeans:
    """Leaves the states as they are."""

    def centered(self, states: Tensor, one: QuestionPlan) -> Tensor:
        del one
        return states


class MeansOfFile:
    """A mean per block and kind of position, from a file."""

    def __init__(self, means: ReadingMeans) -> None:
        self._means = means

    def centered(self, states: Tensor, one: QuestionPlan) -> Tensor:
        return states - self._means.at(one.plan.positions, len(one.plan.tokens))


class MeansOfQuestions:
    """The mean over other questions of the category, per block and token.

    Tokens correspond by their distance from the question's first token before the entity, from its
    last token after it; the entity's own tokens are one group. What is left of a state is what
    makes the question differ from others with the same words.
    """

    def __init__(
        self,
        model: FrozenModel,
        questions: Sequence[TwoHopQuestion],
        read: Sequence[QuestionPlan],
        planned: Callable[[TwoHopQuestion], QuestionPlan],
        seed: int,
    ) -> None:
        """questions: those that may be siblings of those that are `read`; planned: their cells."""
        self._sums: dict[tuple[str, _TokenMatch], Tensor] = {}
        self._counts: dict[tuple[str, _TokenMatch], int] = {}
        self._own: dict[str, dict[_TokenMatch, tuple[Tensor, int]]] = {}
        for one in _siblings(questions, read, seed):
            plan = planned(one)
            groups = _grouped(question_states(model, plan, NoMeans()), plan)
            self._own[one.uid] = groups
            for place, (total, count) in groups.items():
                for category in {one.category, ""}:
                    key = category, place
                    known = self._sums.get(key)
                    self._sums[key] = total.clone() if known is None else known + total
                    self._counts[key] = self._counts.get(key, 0) + count

    def centered(self, states: Tensor, one: QuestionPlan) -> Tensor:
        """Raises DataError for a token at which no other question has a state."""
        means = []
        for place in _places(one):
            own, count = self._own.get(one.question.uid, {}).get(place, (0.0, 0))
            for category in (one.question.category, ""):
                total = self._sums.get((category, place))
                others = self._counts.get((category, place), 0) - count
                if total is not None and others >= (_FEWEST if category else 1):
                    means.append((total - own) / others)
                    break
            else:
                raise DataError(
                    f"question {one.question.uid}: no other question has a state at its token "
                    f"{one.plan.positions[len(means)]}, so none can be subtracted (mean: "
                    f"{OF_QUESTIONS}). Give more questions, or a file of means."
                )
        less = states - torch.stack(means, dim=1)
        same = less.norm(dim=-1) < _NO_DIFFERENCE * states.norm(dim=-1)
        return less.masked_fill(same.unsqueeze(-1), 0.0)


def question_states(model: FrozenModel, one: QuestionPlan, means: Means) -> Tensor:
    """States at the plan's cells, [layers, positions, d_model], minus their means.

    Raises DataError for NaN or infinity.
    """
    pieces = [states for _, states in read_states(model, one.plan)]
    states = torch.cat(pieces, dim=1)
    if not bool(states.isfinite().all()):
        raise DataError(
            f"question {one.question.uid}: the model's states hold NaN or infinity. Load the model "
            "with another dtype (dtype: bfloat16 or float32)."
        )
    return means.centered(states, one)


def _siblings(
    questions: Sequence[TwoHopQuestion], read: Sequence[QuestionPlan], seed: int
) -> list[TwoHopQuestion]:
    """Of each category that is read, up to `_SIBLINGS` questions, drawn at random."""
    categories = {one.question.category for one in read}
    generator = torch.Generator().manual_seed(row_seed(seed, "siblings"))
    counts = dict.fromkeys(categories, 0)
    found = []
    for number in torch.randperm(len(questions), generator=generator).tolist():
        category = questions[number].category
        if category in categories and counts[category] < _SIBLINGS:
            counts[category] += 1
            found.append(questions[number])
    return found


def _places(one: QuestionPlan) -> list[_TokenMatch]:
    """Which tokens of other questions each position corresponds to."""
    first, last = one.entity or (one.first, one.first - 1)
    return [
        ("before", position - one.first)
        if position < first
        else ("entity", 0)
        if position <= last
        else ("after", position - one.last)
        for position in one.plan.positions
    ]


def _grouped(states: Tensor, one: QuestionPlan) -> dict[_TokenMatch, tuple[Tensor, int]]:
    """Sum [layers, d_model] and number of states by place."""
    found: dict[_TokenMatch, tuple[Tensor, int]] = {}
    for column, place in enumerate(_places(one)):
        total, count = found.get(place, (torch.zeros_like(states[:, 0]), 0))
        found[place] = total + states[:, column], count + 1
    return found
