"""Prompts that describe a concept without naming it, and whether a label repeats their words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfie_adapters.errors import DataError
from selfie_adapters.evaluation.naming.judging import names_of
from selfie_adapters.evaluation.taboo.redaction import BLANK, redact
from selfie_adapters.files import existing_file
from selfie_adapters.files.json_lines import iter_jsonl
from selfie_adapters.sources.topics.noun_forms import noun_forms, words_of
from selfie_adapters.sources.topics.topic import Topic
from selfie_adapters.sources.topics.wordnet import packaged_nouns
from selfie_adapters.words import plain

# Words that are in nearly every description say nothing about what a label repeats.
_FUNCTION_WORDS = frozenset(
    "a about an and any are as at be by for from has have in into is it its no not of on one or "
    "other out over some something someone such than that the their there this to up used usually "
    "was were what when where which who whose with you your".split()
)


@dataclass(frozen=True)
class Described:
    """A topic and a text about it in which neither its name nor a synonym occurs."""

    topic: Topic
    text: str


def glosses(topics: Iterable[Topic]) -> tuple[list[Described], int]:
    """The first gloss of every topic that has one, and how many named their topic."""
    found, named = [], 0
    for topic in topics:
        begin = f"{topic.title}, "
        texts = [label[len(begin) :] for label in topic.labels if label.startswith(begin)]
        texts = [text for text in texts if text.strip()]
        if not texts:
            continue
        free = [text for text in texts if not names_it(text, topic)]
        named += not free
        found += [Described(topic, text) for text in free[:1]]
    return found, named


def written(folder: str | Path, topics: Sequence[Topic]) -> tuple[list[Described], int]:
    """The descriptions that a taboo evaluation had a model write, and how many named their topic.

    Raises MissingFileError, or DataError for a folder without such descriptions.
    """
    file = existing_file(Path(folder) / "labels.jsonl")
    by_title = {topic.title: topic for topic in topics}
    found, named = [], 0
    for number, row in iter_jsonl(file):
        if row.get("condition") != "description":
            continue
        title, text = row.get("topic"), row.get("label")
        if not isinstance(title, str) or not isinstance(text, str):
            raise DataError(f"{file}, line {number}: not a description of a topic ({row!r:.60}).")
        topic = by_title.get(title)
        if topic is None or not text.strip():
            continue
        if BLANK in text or names_it(text, topic):
            named += 1
        else:
            found.append(Described(topic, " ".join(text.split()).rstrip(".")))
    if not found:
        raise DataError(
            f"{file}: no description can be used: {named} of them name their topic. Give the "
            "folder of a selfie eval taboo of these topics, or omit it to use the glosses."
        )
    return found, named


def names_it(text: str, topic: Topic) -> bool:
    """Whether the topic's name, a word of it, or a whole synonym occurs in `text`.

    A word of a synonym does not count: *bird of Minerva* is an owl, *bird* is not.
    """
    irregular = packaged_nouns().irregular
    words = words_of(text)
    synonyms = set().union(*(noun_forms(name, irregular) for name in names_of(topic)))
    longest = max((len(words_of(name)) for name in names_of(topic)), default=1)
    phrases = (
        " ".join(words[start : start + length])
        for length in range(1, longest + 1)
        for start in range(len(words) - length + 1)
    )
    if redact(text, topic.title).found:
        return True
    return any(noun_forms(_letters(phrase), irregular) & synonyms for phrase in phrases)


def _letters(text: str) -> str:
    """`text` without punctuation marks."""
    return "".join(c for c in text if c.isalnum() or c.isspace())


def content_words(text: str) -> list[set[str]]:
    """The forms (singular, plural) of every word of `text` that is no function word."""
    irregular = packaged_nouns().irregular
    words = _letters(" ".join(words_of(text))).split()
    return [noun_forms(word, irregular) for word in words if word not in _FUNCTION_WORDS]


def repeated(label: str, text: str) -> tuple[bool, bool]:
    """Whether a content word of `label` occurs in `text`, and whether all of them do.

    A label without content words repeats nothing.
    """
    there: set[str] = set().union(*content_words(text))
    words = content_words(plain(label))
    shared = [bool(forms & there) for forms in words]
    return any(shared), bool(shared) and all(shared)


def digest_values(described: Sequence[Described]) -> list[Any]:
    """What the results depend on, as JSON values."""
    return [[one.topic.title, list(one.topic.labels), one.text] for one in described]
