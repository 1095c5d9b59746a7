"""Two-hop questions in the format of TwoHopFact: a question whose answer runs over an entity that
it does not name (the bridge)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files as package_files
from typing import Any

from selfie_adapters.errors import DataError, nearest

PACKAGED = "facts"
_LONGEST_ALIASES = 200_000  # characters; the longest list in TwoHopFact is far below
_TEXTS = ("e1.value", "e2.value", "e3.value", "r1(e1).prompt", "r2(r1(e1)).prompt")


@dataclass(frozen=True)
class Entity:
    """`aliases` are all its names, `value` the first of them."""

    value: str
    aliases: tuple[str, ...]


@dataclass(frozen=True)
class TwoHopQuestion:
    """e1 leads over the bridge e2 to the answer e3; prompts are sentences to be completed.

    bridge_prompt asks for e2 ("The country whose capital is Paris is"), prompt for e3 ("The
    currency of the country whose capital is Paris is").
    """

    uid: str
    category: str
    e1: str
    bridge: Entity
    answer: Entity
    bridge_prompt: str
    prompt: str


def read_twohop(source: str) -> list[TwoHopQuestion]:
    """Questions from "facts" (the project's own), a file, or a data set on the hub (owner/name).

    Files: Parquet, CSV, JSONL, JSON with columns as in TwoHopFact, and the published filtered file,
    {"summary": …, "filtered_results": […]}. Raises DataError naming file and row, MissingFileError,
    DownloadError.
    """
    from selfie_adapters.hub import open_rows

    if source == PACKAGED:
        source = str(package_files("selfie_adapters.sources") / "twohop_facts.jsonl")
    questions: dict[str, TwoHopQuestion] = {}
    for place, row in _flat(open_rows(source)):
        question = _question(place, row, str(len(questions)))
        if question.uid in questions:
            raise DataError(f"{place}: uid {question.uid} is in an earlier row too.")
        questions[question.uid] = question
    if not questions:
        raise DataError(f"{source}: no questions.")
    return list(questions.values())


_FILTERED = {
    "id": "uid",
    "question": "r2(r1(e1)).prompt",
    "e2_prompt": "r1(e1).prompt",
    "e1_value": "e1.value",
    "e2_value": "e2.value",
    "e3_value": "e3.value",
    "e2_aliases": "e2.aliases",
    "aliases": "e3.aliases",
}
"""Names in the published filtered file → columns of TwoHopFact."""


def _flat(rows: Iterator[tuple[str, dict[str, Any]]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows; those of a filtered file one by one, with TwoHopFact's names."""
    for place, row in rows:
        if "filtered_results" not in row:
            yield place, row
            continue
        results = row["filtered_results"]
        if not isinstance(results, list):
            raise DataError(f"{place}: filtered_results is {results!r:.60}; a list is expected.")
        for number, one in enumerate(results):
            inner = f"{place}, filtered_results[{number}]"
            if not isinstance(one, dict):
                raise DataError(
                    f"{inner}: {one!r:.60}; an object is expected. Write it as an object with the "
                    "question's keys, or remove it."
                )
            named = {**one, "e3_value": one.get("e3_value", one.get("correct_answer"))}
            missing = [name for name in _FILTERED if named.get(name) is None]
            if missing and missing != ["aliases"]:
                raise DataError(f"{inner}: {missing[0]} is missing.")
            yield inner, {**one, **{new: named.get(old) for old, new in _FILTERED.items()}}


def _question(place: str, row: dict[str, Any], number: str) -> TwoHopQuestion:
    texts = {name: _text(place, row, name) for name in _TEXTS}
    uid = row.get("uid")
    return TwoHopQuestion(
        uid=number if uid is None else str(uid),
        category=str(row.get("category") or row.get("fact_comp_type") or ""),
        e1=texts["e1.value"],
        bridge=_entity(place, row, "e2"),
        answer=_entity(place, row, "e3"),
        bridge_prompt=texts["r1(e1).prompt"],
        prompt=texts["r2(r1(e1)).prompt"],
    )


def _text(place: str, row: dict[str, Any], name: str) -> str:
    if name not in row:
        others = [column for column in row if column not in _TEXTS] or list(row)
        raise DataError(f"{place}: no column {name}. {nearest(name, map(str, others))}")
    value = row[name]
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{place}: {name} is {value!r:.60}; a string is expected.")
    return value.strip()


def _entity(place: str, row: dict[str, Any], name: str) -> Entity:
    value = _text(place, row, f"{name}.value")
    given = row.get(f"{name}.aliases")
    found = [] if given is None else list(_aliases(place, f"{name}.aliases", given))
    return Entity(value, tuple(dict.fromkeys([value, *found])))


def _aliases(place: str, name: str, given: Any) -> Iterator[str]:
    """The strings in nested tuples or lists, which may be written out as one text."""
    if isinstance(given, str) and given.lstrip()[:1] in ("(", "["):
        try:
            if len(given) > _LONGEST_ALIASES:
                raise ValueError(f"{len(given):,} characters")
            given = ast.literal_eval(given.strip())
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
            raise DataError(
                f"{place}: {name} is not nested tuples of strings such as (('US', 'USA'),) "
                f"({error}): {given!r:.60}."
            ) from error
    waiting = [given]
    while waiting:
        one = waiting.pop(0)
        if isinstance(one, (tuple, list)):
            waiting = [*one, *waiting]
        elif isinstance(one, str):
            if one.strip():
                yield one.strip()
        else:
            raise DataError(f"{place}: {name} holds {one!r:.60}; strings are expected.")
