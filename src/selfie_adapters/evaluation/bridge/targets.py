"""What is looked for in a question's labels, and how often it would be found by chance.

bridge  the entity that the question runs over and does not name: what the protocol asks about
entity  the one that the question names, at its own tokens: the positive control. Where it is
        not named, a bridge that is not named says nothing about the model.
words   the other words of the question, each at its own last token: are its states read at all?
answer  what the question asks for: is the bridge named in earlier blocks?

Each is compared with the same role's entities of other questions of the category, and a word with
the question's other words, matched with the same labels: the base rate. An entity is compared also
with names that begin with the same letters: the spelling control. Those are other entities of the
questions, whatever their role, or where none begins so, names of the packaged concepts.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import msgspec

from selfie_adapters.evaluation.bridge.entities import names_entity, unnamed
from selfie_adapters.evaluation.bridge.reading import Grid, QuestionPlan, count_hits
from selfie_adapters.evaluation.same_start import StartIndex
from selfie_adapters.files.number_types import NaturalNumber, Proportion
from selfie_adapters.sources.twohop import TwoHopQuestion

Role = str
BRIDGE, ENTITY, WORDS, ANSWER = "bridge", "entity", "words", "answer"
_OTHERS = 20  # entities per question that make the base rate
_ALIKE = 5  # names per entity that begin as it does
_WORD = re.compile(r"[^\W\d_]{5,}")  # shorter ones are mostly function words

Hits = list[list[NaturalNumber]]


class TargetRow(msgspec.Struct):
    """One role in the labels of one question.

    hits: labels that name it, layers × the positions that count. named: 1 if any does, else 0; of
    words the share that is named; and the same by layer. others: how many other entities were
    looked for; the share of them that is named somewhere, and by layer. None without others.
    same_start: how many names were looked for that begin as the entity's does; the share of them
    that is named somewhere. None for words; rows of earlier versions do not have it.
    """

    hits: Hits
    named: Proportion
    named_by_layer: list[Proportion]
    others: NaturalNumber
    others_named: Proportion | None
    others_by_layer: list[Proportion] | None
    same_start: NaturalNumber | None = None
    same_start_named: Proportion | None = None


@dataclass(frozen=True)
class EntityTarget:
    """aliases: names that count. others: those of other questions' entities. columns: indices of
    the plan's positions whose labels count. same_start: names that begin as the entity's does."""

    aliases: tuple[str, ...]
    others: tuple[tuple[str, ...], ...]
    columns: tuple[int, ...]
    same_start: tuple[tuple[str, ...], ...] = ()

    def found(
        self, labels: Grid, matching: Callable[[Sequence[str]], Sequence[str]] = lambda names: names
    ) -> dict[str, Any]:
        """A `TargetRow` as JSON values. labels: of every cell, layers × positions × samples;
        matching: the form in which they give names, where it is not the names themselves."""
        mine = [[row[column] for column in self.columns] for row in labels]
        by_layer = [[t for cell in row for t in cell] for row in mine]
        hits = count_hits(mine, matching(self.aliases))

        def named(entities: Sequence[Sequence[str]]) -> list[list[bool]]:
            return [
                [any(names_entity(text, names) for text in texts) for texts in by_layer]
                for names in map(matching, entities)
            ]

        row = _row(hits, [[any(row) for row in hits]], named(self.others))
        alike = named(self.same_start)
        return row | {
            "same_start": len(alike),
            "same_start_named": _any(alike) if alike else None,
        }


@dataclass(frozen=True)
class Words:
    """Words of the question, and the index of the plan's position where each of them ends."""

    words: tuple[str, ...]
    columns: tuple[int, ...]

    def found(
        self, labels: Grid, matching: Callable[[Sequence[str]], Sequence[str]] = lambda names: names
    ) -> dict[str, Any]:
        """As `EntityTarget.found`; the others of a word are the other words."""

        def hits(word: str, column: int) -> list[int]:
            names = matching((word,))
            return [sum(names_entity(text, names) for text in row[column]) for row in labels]

        own = [hits(*one) for one in zip(self.words, self.columns, strict=True)]
        others = [
            hits(other, column)
            for word, column in zip(self.words, self.columns, strict=True)
            for other in dict.fromkeys(self.words)
            if other.casefold() != word.casefold()
        ]
        named, others_named = ([[n > 0 for n in one] for one in some] for some in (own, others))
        return _row([list(layer) for layer in zip(*own, strict=True)], named, others_named)


def _row(hits: Hits, own: list[list[bool]], others: list[list[bool]]) -> dict[str, Any]:
    """A `TargetRow`; own, others: what is looked for × layers."""
    none = {"others": 0, "others_named": None, "others_by_layer": None}
    found = {"hits": hits, "named": _any(own), "named_by_layer": _by_layer(own), **none}
    if others:
        found |= {
            "others": len(others),
            "others_named": _any(others),
            "others_by_layer": _by_layer(others),
        }
    return found


def _any(named: list[list[bool]]) -> float:
    return sum(map(any, named)) / len(named)


def _by_layer(named: list[list[bool]]) -> list[float]:
    return [sum(layer) / len(named) for layer in zip(*named, strict=True)]


class Targets:
    """The targets of questions; others are taken from `questions`, those in the file."""

    def __init__(self, questions: Sequence[TwoHopQuestion]) -> None:
        self._names: dict[tuple[Role, str], list[tuple[str, ...]]] = {}
        self._aliases: dict[str, tuple[str, ...]] = {}
        for one in questions:
            for role, names in _names(one).items():
                self._aliases |= {names[0]: names} if names else {}
                for category in ("", one.category):
                    known = self._names.setdefault((role, category), [])
                    if names not in known[-_OTHERS * 20 :]:
                        known.append(names)
        self._same_start = StartIndex(self._aliases)

    def of(self, one: QuestionPlan) -> Mapping[Role, EntityTarget | Words]:
        """By role. The entity is absent where the question's tokens do not show where it is."""
        every = tuple(range(len(one.plan.positions)))
        question = one.question
        found: dict[Role, EntityTarget | Words] = {
            BRIDGE: self._entity(BRIDGE, question, one.aliases, every),
            ANSWER: self._entity(
                ANSWER, question, unnamed(question.prompt, question.answer.aliases), every
            ),
        }
        if one.entity is not None:
            first, last = one.entity
            own = tuple(i for i, p in enumerate(one.plan.positions) if first <= p <= last)
            if own:
                found[ENTITY] = self._entity(ENTITY, question, (question.e1,), own)
        if (words := _words(one)).words:
            found[WORDS] = words
        return found

    def _entity(
        self,
        role: Role,
        question: TwoHopQuestion,
        aliases: tuple[str, ...],
        columns: tuple[int, ...],
    ) -> EntityTarget:
        others, alike = self._others(role, question), self._alike(role, question)
        return EntityTarget(aliases, others, columns, alike)

    def _alike(self, role: Role, question: TwoHopQuestion) -> tuple[tuple[str, ...], ...]:
        """Names that begin as the entity's first one does and do not occur in the question."""
        names = _names(question)
        own = [name for of in names.values() for name in of]
        if not names[role]:
            return ()
        found = self._same_start.of(names[role][0], _ALIKE, own)
        rest = (unnamed(question.prompt, self._aliases.get(one, (one,))) for one in found)
        return tuple(one for one in rest if one)

    def _others(self, role: Role, question: TwoHopQuestion) -> tuple[tuple[str, ...], ...]:
        """Names of other questions' entities in the role: of the same category, or of all where it
        has none; without those that are in the question, are its own, or share a name with it."""
        own = {name.casefold() for names in _names(question).values() for name in names}
        for category in (question.category, ""):
            found = []
            for names in self._names.get((role, category), []):
                rest = unnamed(question.prompt, names)
                if rest and not own & {name.casefold() for name in names}:
                    found.append(rest)
                if len(found) == _OTHERS:
                    break
            if found:
                return tuple(found)
        return ()


def _words(one: QuestionPlan) -> Words:
    """The question's words of five letters or more, without those of the entity."""
    places = range(one.first, one.last + 1)
    pieces = [one.plan.tokens[place].text for place in places]
    ends = list(accumulate(map(len, pieces)))
    words, columns = [], []
    for match in _WORD.finditer("".join(pieces)):
        place = places[bisect_left(ends, match.end())]
        inside = one.entity is not None and one.entity[0] <= place <= one.entity[1]
        if not inside and place in one.plan.positions:
            words.append(match[0])
            columns.append(one.plan.positions.index(place))
    return Words(tuple(words), tuple(columns))


def _names(question: TwoHopQuestion) -> dict[Role, tuple[str, ...]]:
    return {
        BRIDGE: question.bridge.aliases,
        ENTITY: (question.e1,),
        ANSWER: question.answer.aliases,
    }
