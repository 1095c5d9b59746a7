"""Topic vectors: what a model's residual stream holds after a prompt about a topic."""

from __future__ import annotations

import gzip
import re
from codecs import BOM_UTF8
from collections.abc import Callable, Sequence
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from selfie_adapters.chat.request import Message
from selfie_adapters.config.types import Chat
from selfie_adapters.errors import DataError, PromptError
from selfie_adapters.files import existing_file, read_plain
from selfie_adapters.files.json_lines import jsonl_values
from selfie_adapters.files.memory import MemoryLimit
from selfie_adapters.files.table_rows import csv_rows
from selfie_adapters.hub import hub_rows, is_hub_name
from selfie_adapters.model import FrozenModel, SharedPrefix, capture
from selfie_adapters.model.limits import check_texts
from selfie_adapters.model.prefix import common_length
from selfie_adapters.model.tokens import begun_ids
from selfie_adapters.model.user_text import UserText
from selfie_adapters.sources.topics.titles import read_titles
from selfie_adapters.sources.topics.topic import Topic, Topics, topic_of_row

_BATCH_TOKENS = 2048
_TOPIC, _PLACE = 12, 10  # bytes of a topic in columns, and of a label without its text


def open_topics(source: str) -> Sequence[Topic]:
    """The topics that `source` names: one of the project's lists, a file, or a hub data set.

    The lists are "concepts" and "more-concepts" (`packaged_topics`, `more_topics`). A file wins
    over a data set (owner/name) of the same name. Raises like `read_topics` and `hub_topics`.
    """
    if source == "concepts":
        return packaged_topics()
    if source == "more-concepts":
        return more_topics()
    if not Path(source).expanduser().exists() and is_hub_name(source):
        return hub_topics(source)
    return read_topics(source)


def read_topics(path: str | Path) -> Sequence[Topic]:
    """Topics from JSONL (.gz too) or CSV with a header; fields name or prompt, labels, split; or
    from a titles file, {"titles": […]}.

    labels: a JSON list, or in CSV one text (several separated by "|"); absent means the name.
    Raises DataError naming file and line.
    """
    file = existing_file(path)
    if _is_titles(file):
        return Topics(Topic((title,), name=title) for title in read_titles(file))
    suffix = file.name.removesuffix(".gz").rsplit(".", 1)[-1].lower()
    data = read_plain(file)
    if suffix == "csv":
        rows = ((number, _labels_split(row)) for number, row in csv_rows(str(file), data))
    else:
        rows = jsonl_values(
            str(file), data, "One JSON object per line; a table must be called .csv."
        )
    # The file, and its strings once more.
    limit, topics = MemoryLimit(str(file), len(data), held=2 * len(data)), Topics()
    for number, row in rows:
        topic = topic_of_row(f"{file}, line {number}", row)
        limit.take(_TOPIC + _PLACE * len(topic.labels))
        topics.append(topic)
    if not topics:
        raise DataError(
            f'{file}: no topics. Expected rows such as {{"name": "owl", "labels": […]}}.'
        )
    return topics


def _is_titles(file: Path) -> bool:
    """Whether a .json file is one object that begins with its titles, not rows line by line."""
    if not file.name.removesuffix(".gz").lower().endswith(".json"):
        return False
    return re.match(rb'\s*\{\s*"titles"\s*:', read_plain(file).removeprefix(BOM_UTF8)) is not None


def packaged_topics() -> list[Topic]:
    """The project's own concepts: 8,000 nouns of WordNet 3.0 with glosses and synonyms.

    A tenth has the split "val" and a tenth "test". No name, synonym, singular form or head of a
    compound is in two splits.
    """
    return _packaged("concepts.jsonl")


def more_topics() -> list[Topic]:
    """12,000 further nouns of WordNet 3.0 to train on, in rows as those of `packaged_topics`.

    All have the split "train". None shares a name, synonym, singular form or head with a topic of
    `packaged_topics` that has "val" or "test".
    """
    return _packaged("more_concepts.jsonl.gz")


def _packaged(name: str) -> list[Topic]:
    data = (package_files("selfie_adapters.sources.topics") / name).read_bytes()
    rows = jsonl_values(name, gzip.decompress(data) if name.endswith(".gz") else data)
    return [Topic(tuple(row["labels"]), name=row["name"], split=row["split"]) for _, row in rows]


def _labels_split(row: dict[str, Any]) -> dict[str, Any]:
    """A CSV row without its empty fields, and with its labels as a list."""
    clean: dict[str, Any] = {key.strip(): value for key, value in row.items() if value}
    if "labels" in clean:
        clean["labels"] = [label.strip() for label in clean["labels"].split("|")]
    return clean


def topic_texts(
    model: FrozenModel,
    topics: Sequence[Topic],
    question: str,
    chat: Chat,
    messages: Sequence[Message] | None = None,
) -> list[str]:
    """The text of each topic: its prompt, or `question` with its name, as a chat turn or plain.

    question holds "{}" where the name goes. messages: a conversation in its place, in which "{}"
    is where the topic's prompt goes, or without one its name. chat: the tokenizer's
    own "template" (with whatever system prompt it brings), a "bare" turn without one, or "none".
    Raises DataError for a question or conversation without a place and for a topic that brings a
    begin token into a chat turn, PromptError where the tokenizer has no such chat format.
    """
    if messages is not None:
        return _conversations(model, topics, messages, chat)
    if "{}" not in question:
        raise DataError(f'question {question!r} has no "{{}}" for the topic\'s name.')
    turns = UserText(model.tokenizer, chat)
    return _of_each(
        topics, lambda one: turns.text(one.prompt or question.replace("{}", one.name or ""))
    )


def _conversations(
    model: FrozenModel, topics: Sequence[Topic], messages: Sequence[Message], chat: Chat
) -> list[str]:
    if not any("{}" in message.content for message in messages):
        raise DataError('the messages have no "{}" for the topic\'s name.')
    turns = UserText(model.tokenizer, chat)

    def conversation(topic: Topic) -> str:
        about = topic.prompt or topic.name or ""
        return turns.conversation(
            [{"role": one.role, "content": one.content.replace("{}", about)} for one in messages]
        )

    return _of_each(topics, conversation)


def _of_each(topics: Sequence[Topic], text_of: Callable[[Topic], str]) -> list[str]:
    """The text of each topic. Raises DataError naming the topic that none can be made for."""
    texts: list[str] = []
    for number, topic in enumerate(topics):
        try:
            texts.append(text_of(topic))
        except PromptError as error:
            raise DataError(f'topic {number} ("{topic.title}"): {error}') from error
    return texts


def topic_vectors(
    model: FrozenModel,
    texts: Sequence[str],
    layers: Sequence[int],
    position: int | Sequence[int] = -1,
    progress: Callable[[int], None] = lambda _done: None,
) -> Tensor:
    """Outputs of blocks `layers` at one token of each text: [n, layers, d_model], float32.

    Each text gets a begin token where the model has one and the text does not begin with it.
    position: of all prompts, or of each; negative counts from the end (-1 is the last token).
    What all prompts begin with is computed once. Raises DataError for a text too short for the
    position, PromptError for one with a doubled begin token.
    """
    if not texts:
        return torch.empty(0, len(layers), model.d_model)
    rows = begun_ids(model.tokenizer, texts)
    check_texts(model, rows, "topic")
    positions = [position] * len(rows) if isinstance(position, int) else position
    for text, row, one in zip(texts, rows, positions, strict=True):
        if not -len(row) <= one < len(row):
            raise DataError(f"position {one} in a text of {len(row)} tokens: {text!r:.80}.")
    at = torch.tensor([one % len(row) for one, row in zip(positions, rows, strict=True)])
    # Tokens after the one that is taken change nothing: causal attention never looks to the right.
    rows = [row[: one + 1] for row, one in zip(rows, at.tolist(), strict=True)]
    prefix = SharedPrefix(model, rows[0][: common_length(rows, int(at.min()))])
    shared = prefix.length
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]), reverse=True)
    result = torch.empty(len(rows), len(layers), model.d_model)
    start = 0
    while start < len(order):
        width = len(rows[order[start]]) - shared
        chosen = order[start : start + max(1, _BATCH_TOKENS // width)]
        start += len(chosen)
        # Padding on the right needs no mask, for the same reason.
        ids = torch.zeros(len(chosen), width, dtype=torch.int64)
        for row, i in enumerate(chosen):
            ids[row, : len(rows[i]) - shared] = torch.tensor(rows[i][shared:])
        cache = prefix.for_batch(len(chosen))
        hidden = capture(model, ids, layers, at[chosen] - shared, cache=cache)
        result[chosen] = hidden.float().cpu()
        progress(len(chosen))
    return result


def hub_topics(repo: str) -> Sequence[Topic]:
    """The topics of data set `repo`: columns original_title, labels, and perhaps prompt, split.

    Raises DataError naming file and row, and what `hub_rows` raises.
    """
    topics = Topics()
    for place, row in hub_rows(repo):
        if "original_title" not in row:
            raise DataError(
                f"{place}: no column original_title (columns: {', '.join(row)}). Expected a data "
                "set like keenanpepper/fifty-thousand-things."
            )
        split = "val" if row.get("split") == "validation" else row.get("split")
        fields = {"name": row["original_title"], "labels": row.get("labels"), "split": split}
        topics.append(topic_of_row(place, {**fields, "prompt": row.get("prompt") or None}))
    if not topics:
        raise DataError(f"{repo}: the data set has no rows.")
    return topics
