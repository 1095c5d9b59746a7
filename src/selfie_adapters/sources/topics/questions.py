"""What a writer model is asked about a title, and how its answers are read."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from selfie_adapters.chat import ChatRequest, Message
from selfie_adapters.words import plain

LONGEST_TEXT = 300  # characters of a prompt or label; longer ones are not what was asked for

_WRITE = """\
Topic: {title}

Two lists are used for a study of how language models hold topics in mind.

prompts: {prompts} different messages that a person could send to an assistant and that are about \
this topic and no other. Each names the topic, is one sentence, and gives no facts away.

labels: {labels} different short phrases, 2 to 12 words each, that say what the topic is. Vary the \
angle: what kind of thing it is, what sets it apart, where or when it belongs, what it is known \
for. No phrase may fit many other topics, and none may be a full sentence.

Answer with one JSON object and nothing else: {{"prompts": ["…"], "labels": ["…"]}}"""

_JUDGE = """\
Topic: {title}

Messages to an assistant:
{prompts}

Phrases:
{labels}

First choose the message that turns the assistant's mind to this topic most plainly. Then give \
every phrase a mark from 0 to 10 for how well it fits: 10 is true of this topic and of hardly any \
other, 5 is true but fits many topics, 0 is false.

Answer with one JSON object and nothing else, such as {{"message": 1, "marks": [7, 10, 0]}}, with \
{count} marks in the order of the phrases."""


@dataclass(frozen=True)
class Candidates:
    """What was written about a title, over all runs."""

    title: str
    prompts: tuple[str, ...]
    labels: tuple[str, ...]


@dataclass(frozen=True)
class TitleJudgement:
    """prompt: number of the chosen one, from 0; marks: one per label, 0 to 1."""

    prompt: int
    marks: tuple[float, ...]


def writing_request(
    title: str, prompts: int, labels: int, run: int, temperature: float, max_tokens: int
) -> ChatRequest:
    """Number of prompts and labels per title; another `run` samples others."""
    text = _WRITE.format(
        title=json.dumps(title, ensure_ascii=False), prompts=prompts, labels=labels
    )
    return ChatRequest((Message("user", text),), max_tokens, temperature, seed=run)


def judging_request(one: Candidates) -> ChatRequest:
    """Which prompt, and how well each label fits; greedy."""
    text = _JUDGE.format(
        title=json.dumps(one.title, ensure_ascii=False),
        prompts=_numbered(one.prompts),
        labels=_numbered(one.labels),
        count=len(one.labels),
    )
    return ChatRequest((Message("user", text),), 32 + 6 * len(one.labels))


def read_writing(title: str, answer: str) -> Candidates | None:
    """The prompts and labels in an answer; None where there are none of either."""
    found = _json_object(answer)
    prompts, labels = (_texts(found.get(key)) for key in ("prompts", "labels"))
    return Candidates(title, prompts, labels) if prompts and labels else None


def read_judgement(one: Candidates, answer: str) -> TitleJudgement | None:
    """The choice and the marks; None for an answer that does not hold both."""
    found = _json_object(answer)
    prompt, marks = found.get("message"), found.get("marks")
    if not isinstance(prompt, int) or isinstance(prompt, bool) or not isinstance(marks, list):
        return None
    if not 1 <= prompt <= len(one.prompts):
        return None
    if len(marks) != len(one.labels) or not all(_mark(mark) for mark in marks):
        return None
    return TitleJudgement(prompt - 1, tuple(mark / 10 for mark in marks))


def merge(runs: list[Candidates]) -> Candidates:
    """Candidates of one title from several runs, duplicates removed.

    What more runs wrote comes first; two are duplicates if they differ in letter case, whitespace
    and a full stop at the end only.
    """
    return Candidates(
        runs[0].title,
        _by_frequency([one.prompts for one in runs]),
        _by_frequency([one.labels for one in runs]),
    )


def _by_frequency(runs: list[tuple[str, ...]]) -> tuple[str, ...]:
    first: dict[str, str] = {}
    counts: dict[str, int] = {}
    for texts in runs:
        for text in texts:
            first.setdefault(_same(text), text)
        for key in set(map(_same, texts)):
            counts[key] = counts.get(key, 0) + 1
    return tuple(first[key] for key in sorted(first, key=lambda key: -counts[key]))


def _same(text: str) -> str:
    return plain(text).rstrip(".")


def _numbered(texts: tuple[str, ...]) -> str:
    return "\n".join(f"{i}. {text}" for i, text in enumerate(texts, start=1))


def _json_object(answer: str) -> dict[str, Any]:
    """The JSON object in an answer, which may be in a code fence or after some words."""
    match = re.search(r"\{.*\}", answer, flags=re.DOTALL)
    try:
        found = json.loads(match.group()) if match else None
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _texts(value: Any) -> tuple[str, ...]:
    """The strings of a list that can be used, runs of whitespace made one space."""
    if not isinstance(value, list):
        return ()
    clean = (" ".join(_printable(text).split()) for text in value if isinstance(text, str))
    return tuple(dict.fromkeys(text for text in clean if text and len(text) <= LONGEST_TEXT))


def _printable(text: str) -> str:
    """Without control characters and halves of characters, which no label needs."""
    whole = text.encode("utf-8", "ignore").decode()
    return "".join(c if c.isprintable() or c.isspace() else "" for c in whole)


def _mark(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 10
