"""The taboo protocol: does a chat model's description without the name find its topic?

Compared with a retrieval of labels it shows how far the labels of vectors go beyond what the model
writes when it is asked. Names are taken out of what it writes (redaction.py), whether it kept the
rule or not; for a fair comparison the labels are also looked up with the names taken out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from selfie_adapters.chat import ChatRequest, Message, open_chat
from selfie_adapters.config.evaluation.retrieval import UNTRAINED
from selfie_adapters.config.evaluation.taboo import TabooSettings
from selfie_adapters.dataset.controls import shuffle_order
from selfie_adapters.errors import ConfigError, DataError
from selfie_adapters.evaluation.base import Protocol
from selfie_adapters.evaluation.comparing import METHOD
from selfie_adapters.evaluation.folder import digest_of
from selfie_adapters.evaluation.retrieval.embedding import open_embedder, require_embedder
from selfie_adapters.evaluation.retrieval.lookup import (
    Entry,
    Query,
    Scored,
    TopicIndex,
)
from selfie_adapters.evaluation.retrieval.protocol import TABLE
from selfie_adapters.evaluation.retrieval.results import compare_all
from selfie_adapters.evaluation.retrieval.tables import report_conditions, report_minus
from selfie_adapters.evaluation.retrieval.targets import (
    Target,
    entries_of,
    other_labels,
    sample,
    targets_of_topics,
)
from selfie_adapters.evaluation.tables import Table
from selfie_adapters.evaluation.taboo.redaction import BLANK, redact
from selfie_adapters.files import existing_file, read_json, sha256
from selfie_adapters.files.json_lines import iter_jsonl, write_jsonl
from selfie_adapters.files.memory import MemoryLimit
from selfie_adapters.files.number_types import NaturalNumber
from selfie_adapters.sources import open_topics

QUESTION = (
    "In one or two sentences, describe {} so that a reader can tell what is meant. Do not write "
    "its name, nor any word of its name."
)
DESCRIPTION = "description"
_ROW = 320  # bytes of a row of a retrieval without its strings


class TabooRow(msgspec.Struct):
    """What the model wrote about one topic."""

    text: str


class Taboo(Protocol[TabooSettings]):
    """rows.jsonl holds what the model wrote, by topic number; labels.jsonl where each text led."""

    settings_class = TabooSettings
    row = TabooRow
    free = ("chat",)

    def check(self) -> None:
        if self._embedder is None:
            require_embedder(self.settings.embedder, "selfie eval taboo")

    def inputs(self) -> dict[str, str]:
        """Raises ConfigError for a retrieval that had other topics, index or embedder."""
        settings = self.settings
        self._entries = entries = entries_of(open_topics(settings.topics))
        self._earlier = _Retrieval(settings, entries) if settings.retrieval is not None else None
        chosen = self._earlier.topics() if self._earlier else _own_topics(settings)
        sampled = sample(chosen, settings.limit, settings.seed)
        self._targets = targets_of_topics(entries, sampled)
        if len(self._targets) < 2:
            raise DataError(
                f'{settings.topics}: {len(self._targets)} topics with the split "{settings.split}";'
                " at least 2 are needed, so that they can be shuffled."
            )
        self._asked = self._chat or open_chat(
            settings.chat, self._path / "answers", device=settings.device
        )
        self._embedder = self._embedder or open_embedder(settings.embedder, settings.device)
        inputs = {
            "topics_digest": digest_of([(e.title, e.labels) for e in entries]),
            "asked_digest": digest_of([target.topic for target in self._targets]),
            "chat_model": self._asked.name,
            "embedder_digest": self._embedder.digest,
        }
        return inputs | ({"retrieval_labels": self._earlier.digest} if self._earlier else {})

    def measure(self) -> dict[str, Any]:
        settings, entries, targets = self.settings, self._entries, self._targets
        self.folder.also_depends_on("chat_weights", self._asked.weights)
        written = self._ask()
        self.progress("embedding the index", 0, len(entries))
        index = TopicIndex(entries, settings.index, self._embedder)
        scored = self._look_up(index, written)
        labels = self._earlier.scored(index, targets) if self._earlier is not None else []
        rows = (row for one in [*scored, *labels] for row in index.table(one))
        write_jsonl(self.folder.folder / TABLE, rows)
        names = [entries[target.topic].title for target in targets]
        leaked = [redact(text, name).found > 0 for text, name in zip(written, names, strict=True)]
        return {
            "counts": {"topics": len(entries), "asked": len(targets)},
            "interval": "95 %, over topics; recall: Wilson, reciprocal rank: bootstrap; " + METHOD,
            "chance_at_1": 1 / len(entries),
            "answers_with_the_name": sum(leaked),
            "blank_answers": sum(not text.strip() for text in written),
            "conditions": [one.summary(settings.seed) for one in [*scored, *labels]],
            "comparisons": compare_all([(one, scored[0]) for one in labels], settings.seed),
            "recipes": self._earlier.recipes if self._earlier is not None else [],
        }

    def _ask(self) -> list[str]:
        """What the model writes about each target; answers are kept one by one."""
        settings, rows, targets = self.settings, self.folder.rows, self._targets
        missing = [target for target in targets if target.key not in rows]
        requests = [
            ChatRequest(
                (Message("user", QUESTION.format(f'"{self._entries[target.topic].title}"')),),
                settings.max_tokens,
                settings.temperature,
                seed=settings.seed,
            )
            for target in missing
        ]

        def keep(number: int, text: str) -> None:
            self.folder.add(missing[number].key, {"text": text})
            self.progress("asking the model", len(rows), len(targets))

        self.progress("asking the model", len(rows), len(targets))
        if requests:
            self._asked.answer(requests, keep)
        return [rows[target.key]["text"] for target in targets]

    def _look_up(self, index: TopicIndex, written: Sequence[str]) -> list[Scored]:
        """The descriptions, redacted, and what they are compared with; they come first."""
        settings, targets = self.settings, self._targets
        names = [index.entries[target.topic].title for target in targets]
        redacted = [redact(text, name).text for text, name in zip(written, names, strict=True)]
        order: list[int] = shuffle_order(len(targets), settings.seed).tolist()
        given = other_labels(targets, index.entries, settings.seed)
        conditions = {
            DESCRIPTION: ("the model's description of the topic, its name taken out", redacted),
            f"{DESCRIPTION}, as written": ("the same with what it wrote of the name", written),
            f"{DESCRIPTION}: shuffled": ("another topic's", [redacted[i] for i in order]),
            "nothing said": ("one text that says nothing", [BLANK] * len(targets)),
            "training labels, redacted": (
                "a given label that is not the title, where there is one, the name taken out",
                [text and redact(text, name).text for text, name in zip(given, names, strict=True)],
            ),
        }
        return [
            index.look_up(
                name,
                meaning,
                [
                    Query(t.key, t.topic, text)
                    for t, text in zip(targets, texts, strict=True)
                    if text is not None
                ],
            )
            for name, (meaning, texts) in conditions.items()
            if any(text is not None for text in texts)
        ]

    @classmethod
    def report(cls, results: Mapping[str, Any]) -> Iterator[Table | str]:
        counts = results["counts"]
        title = f"{counts['asked']} descriptions among {counts['topics']} topics"
        yield report_conditions(title, results, {DESCRIPTION})
        yield from report_minus(results, DESCRIPTION)
        with_name = results["answers_with_the_name"]
        yield f"{with_name} of {counts['asked']} answers had the name in them"


def _own_topics(settings: TabooSettings) -> list[int]:
    topics = open_topics(settings.topics)
    return [i for i, topic in enumerate(topics) if topic.split in (None, settings.split)]


class _RetrievalRow(msgspec.Struct):
    """What is needed of a row of a retrieval's table (`TopicIndex.table`)."""

    condition: str
    topic_number: NaturalNumber
    topic: str
    label: str
    scale: float | None


class _Retrieval:
    """The labels of an earlier retrieval, by topic. recipes: which of its adapters differ in their
    training seed alone."""

    def __init__(self, settings: TabooSettings, entries: Sequence[Entry]) -> None:
        folder = Path(settings.retrieval or "")
        results = existing_file(folder / "results.json")
        match read_json(results):
            case {
                "protocol": "retrieval",
                "settings": {"adapters": dict(adapters), "labels": dict(labels), **had},
                **rest,
            }:
                self._names = [*adapters, *labels, UNTRAINED]
                self.recipes = [
                    {"recipe": one["recipe"], "adapters": one["adapters"]}
                    for one in rest.get("recipes", [])  # not in results of earlier releases
                ]
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
        table = existing_file(folder / TABLE)
        rows = (self._row(table, *numbered) for numbered in iter_jsonl(table))
        limit, self._rows = MemoryLimit(str(table), table.stat().st_size), list[_RetrievalRow]()
        for row in rows:
            if row.condition in self._names:
                limit.take(_ROW + len(row.label) + len(row.topic))
                self._rows.append(row)
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
            for which, some in ((name, texts), (f"{name}, redacted", bare)):
                queries = [
                    Query(str(row.topic_number), row.topic_number, text, row.scale)
                    for row, text in zip(rows, some, strict=True)
                ]
                found.append(index.look_up(which, "labels of the retrieval", queries))
        return found
