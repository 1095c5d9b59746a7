"""The taboo protocol: what a chat model says of a topic without its name finds the topic, or not.

Beside a retrieval of labels it says how far the labels of vectors go beyond what the model says
when it is asked. Names are taken out of what it writes (redaction.py), whether it kept the rule or
not; for a fair comparison the labels are also looked up with the names taken out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec

from selfie_adapters.chat import ChatModel, ChatRequest, Message, open_chat
from selfie_adapters.config.evaluation.retrieval import UNTRAINED
from selfie_adapters.config.evaluation.taboo import TabooSettings
from selfie_adapters.dataset.controls import shuffle_order
from selfie_adapters.errors import ConfigError, DataError
from selfie_adapters.evaluation.folder import EvaluationFolder
from selfie_adapters.evaluation.retrieval.conditions import other_labels
from selfie_adapters.evaluation.retrieval.embedding import Embedder, SentenceEmbedder
from selfie_adapters.evaluation.retrieval.embedding_cache import CachedEmbedder
from selfie_adapters.evaluation.retrieval.lookup import Query, Scored, TopicIndex, compare
from selfie_adapters.evaluation.retrieval.protocol import TABLE, write_table
from selfie_adapters.evaluation.retrieval.targets import (
    Target,
    entries_of,
    sample,
    targets_of_topics,
)
from selfie_adapters.evaluation.retrieval.title_index import Entry
from selfie_adapters.evaluation.spoken_labels import Progress, silent
from selfie_adapters.evaluation.taboo.redaction import BLANK, redact
from selfie_adapters.files import existing_file, read_json, sha256
from selfie_adapters.files.json_lines import iter_jsonl
from selfie_adapters.sources import open_topics

QUESTION = (
    "In one or two sentences, describe {} so that a reader can tell what is meant. Do not write "
    "its name, nor any word of its name."
)
DESCRIPTION = "description"


def run_taboo(
    settings: TabooSettings,
    folder: str | Path,
    chat: ChatModel | None = None,
    embedder: Embedder | None = None,
    progress: Progress = silent,
) -> Path:
    """Run the protocol, or resume it; returns the path of results.json.

    Beside it come rows.jsonl, what the model wrote by topic number, and labels.jsonl, where each
    text led. chat and embedder may be open already. Raises ConfigError for a retrieval that had
    other topics, index or embedder; DownloadError if a server does not answer.
    """
    entries = entries_of(open_topics(settings.topics))
    earlier = _Retrieval(settings, entries) if settings.retrieval is not None else None
    chosen = earlier.topics() if earlier is not None else _own_topics(settings)
    targets = targets_of_topics(entries, sample(chosen, settings.limit, settings.seed))
    if len(targets) < 2:
        raise DataError(
            f'{settings.topics}: {len(targets)} topics with the split "{settings.split}"; at '
            "least 2 are needed, so that they can be shuffled."
        )
    chat = chat or open_chat(settings.chat, Path(folder) / "answers", device=settings.device)
    embedder = embedder or CachedEmbedder(
        SentenceEmbedder(settings.embedder, device=settings.device)
    )
    inputs = {
        "topics_digest": _digest([(e.title, e.labels) for e in entries]),
        "asked_digest": _digest([target.topic for target in targets]),
        "chat_model": chat.name,
        "embedder_digest": embedder.digest,
    }
    if earlier is not None:
        inputs["retrieval_labels"] = earlier.digest
    kept = EvaluationFolder(folder, "taboo", settings, inputs, free=("chat",), kind=TabooRow)
    kept.also_depends_on("chat_weights", chat.weights)
    said = _ask(settings, kept, chat, targets, entries, progress)
    progress("embedding the index", 0, len(entries))
    index = TopicIndex(entries, settings.index, embedder)
    scored = _look_up(settings, index, targets, said)
    labels = earlier.scored(index, targets) if earlier is not None else []
    write_table(kept.folder / TABLE, index, [*scored, *labels])
    names = [entries[target.topic].title for target in targets]
    leaked = [redact(text, name).found > 0 for text, name in zip(said, names, strict=True)]
    return kept.finish(
        {
            "counts": {"topics": len(entries), "asked": len(targets)},
            "interval": "95 %, bootstrap over topics",
            "chance_at_1": 1 / len(entries),
            "answers_with_the_name": sum(leaked),
            "blank_answers": sum(not text.strip() for text in said),
            "conditions": [one.summary(settings.seed) for one in [*scored, *labels]],
            "comparisons": [compare(one, scored[0], settings.seed) for one in labels],
        }
    )


def _own_topics(settings: TabooSettings) -> list[int]:
    topics = open_topics(settings.topics)
    return [i for i, topic in enumerate(topics) if topic.split in (None, settings.split)]


def _ask(
    settings: TabooSettings,
    kept: EvaluationFolder,
    chat: ChatModel,
    targets: Sequence[Target],
    entries: Sequence[Entry],
    progress: Progress,
) -> list[str]:
    """What the model writes about each target; answers are kept one by one."""
    missing = [target for target in targets if target.key not in kept.rows]
    requests = [
        ChatRequest(
            (Message("user", QUESTION.format(f'"{entries[target.topic].title}"')),),
            settings.max_tokens,
            settings.temperature,
            seed=settings.seed,
        )
        for target in missing
    ]

    def keep(number: int, text: str) -> None:
        kept.add(missing[number].key, {"text": text})
        progress("asking the model", len(kept.rows), len(targets))

    progress("asking the model", len(kept.rows), len(targets))
    if requests:
        chat.answer(requests, keep)
    return [kept.rows[target.key]["text"] for target in targets]


def _look_up(
    settings: TabooSettings, index: TopicIndex, targets: Sequence[Target], said: Sequence[str]
) -> list[Scored]:
    """The descriptions, redacted, and what they have to be set beside; they come first."""
    names = [index.entries[target.topic].title for target in targets]
    redacted = [redact(text, name).text for text, name in zip(said, names, strict=True)]
    order: list[int] = shuffle_order(len(targets), settings.seed).tolist()
    given = other_labels(targets, index.entries, settings.seed)
    conditions = {
        DESCRIPTION: ("what the model says of the topic, its name taken out", redacted),
        f"{DESCRIPTION}, as written": ("the same with what it wrote of the name", said),
        f"{DESCRIPTION}: shuffled": ("another topic's", [redacted[i] for i in order]),
        "nothing said": ("one text that says nothing", [BLANK] * len(targets)),
        "training labels, redacted": (
            "a given label that is not the title, the name taken out",
            [redact(text, name).text for text, name in zip(given, names, strict=True)],
        ),
    }
    return [
        index.look_up(
            name,
            meaning,
            [Query(t.key, t.topic, text) for t, text in zip(targets, texts, strict=True)],
        )
        for name, (meaning, texts) in conditions.items()
    ]


class TabooRow(msgspec.Struct):
    """What the model wrote about one topic."""

    text: str


class _RetrievalRow(msgspec.Struct):
    """What is needed of a row of a retrieval's table (`TopicIndex.table`)."""

    condition: str
    topic_number: Annotated[int, msgspec.Meta(ge=0)]
    topic: str
    label: str
    scale: float | None


class _Retrieval:
    """The labels of an earlier retrieval, by topic."""

    def __init__(self, settings: TabooSettings, entries: Sequence[Entry]) -> None:
        folder = Path(settings.retrieval or "")
        results = existing_file(folder / "results.json")
        match read_json(results):
            case {
                "protocol": "retrieval",
                "settings": {"adapters": dict(adapters), "labels": dict(labels), **had},
            }:
                self._names = [*adapters, *labels, UNTRAINED]
            case {"protocol": found} if found != "retrieval":
                raise ConfigError(
                    f"{results}: not the results of a retrieval (protocol {found!r:.60})."
                )
            case _:
                raise ConfigError(f"{results}: not the results of a retrieval.")
        for key in ("topics", "index", "embedder"):
            if had.get(key) != getattr(settings, key):
                raise ConfigError(
                    f"{folder} was made with {key} {had.get(key)!r}; here it is "
                    f"{getattr(settings, key)!r}. Both need the same to be compared."
                )
        rows = [self._row(folder / TABLE, *numbered) for numbered in iter_jsonl(folder / TABLE)]
        self._rows = [row for row in rows if row.condition in self._names]
        for row in self._rows:
            number = row.topic_number
            if number >= len(entries) or entries[number].title != row.topic:
                raise ConfigError(
                    f'{folder}: topic {number} was "{row.topic}" there and is another one now. '
                    "Run the retrieval again."
                )
        self.digest = sha256(folder / TABLE)

    @staticmethod
    def _row(file: Path, line: int, fields: dict[str, Any]) -> _RetrievalRow:
        try:
            return msgspec.convert(fields, _RetrievalRow)
        except msgspec.ValidationError as error:
            raise DataError(
                f"{file}, line {line}: not a row of a retrieval ({error}). Run the retrieval again."
            ) from error

    def topics(self) -> list[int]:
        """Numbers of the topics that its labels are about."""
        return sorted({row.topic_number for row in self._rows})

    def scored(self, index: TopicIndex, asked: Sequence[Target]) -> list[Scored]:
        """Its labels of the topics asked about, looked up as they are and with the names out."""
        found = []
        topics = {target.topic for target in asked}
        about = [row for row in self._rows if row.topic_number in topics]
        for name in self._names:
            rows = [row for row in about if row.condition == name]
            if not rows:
                continue
            texts = [row.label for row in rows]
            bare = [redact(row.label, row.topic).text for row in rows]
            for which, said in ((name, texts), (f"{name}, redacted", bare)):
                queries = [
                    Query(str(row.topic_number), row.topic_number, text, row.scale)
                    for row, text in zip(rows, said, strict=True)
                ]
                found.append(index.look_up(which, "labels of the retrieval", queries))
        return found


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
