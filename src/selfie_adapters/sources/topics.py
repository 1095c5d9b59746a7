"""Topic vectors: what a model's residual stream holds after a prompt about a topic."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from selfie_adapters.errors import DataError, nearest
from selfie_adapters.files import existing_file, read_plain
from selfie_adapters.model import FrozenModel, SharedPrefix, capture
from selfie_adapters.model.prefix import common_length
from selfie_adapters.model.prompt import Chat, as_chat, encode

_BATCH_TOKENS = 2048
_FIELDS = ("name", "prompt", "labels")
_LIKE_LABELS = ("label", "labels", "lables")


@dataclass(frozen=True)
class Topic:
    """Something to have a vector of: the text that evokes it, and its labels.

    `name` is put into a question ("Tell me about …"); `prompt` is used as it stands instead.
    """

    labels: tuple[str, ...]
    name: str | None = None
    prompt: str | None = None


def read_topics(path: str | Path) -> list[Topic]:
    """Topics from JSONL (.gz too) or CSV with a header; fields name or prompt, and labels.

    labels: a JSON list, or in CSV one text (several parted by "|"); absent means the name.
    Raises DataError naming file and line.
    """
    file = existing_file(path)
    suffix = file.name.removesuffix(".gz").rsplit(".", 1)[-1]
    try:
        text = read_plain(file).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not UTF-8 text ({error}). Save it as UTF-8.") from error
    rows = _csv_rows(file, text) if suffix == "csv" else _jsonl_rows(file, text)
    topics = [_topic(file, number, row) for number, row in rows]
    if not topics:
        raise DataError(
            f'{file}: no topics. Expected rows such as {{"name": "owl", "labels": […]}}.'
        )
    return topics


def packaged_topics() -> list[Topic]:
    """The project's own concepts: 8,000 nouns of WordNet 3.0 with glosses and synonyms."""
    text = (package_files("selfie_adapters.sources") / "concepts.jsonl").read_text("utf-8")
    rows = (json.loads(line) for line in text.split("\n") if line)
    return [Topic(tuple(row["labels"]), name=row["name"]) for row in rows]


def _jsonl_rows(file: Path, text: str) -> list[tuple[int, dict[str, Any]]]:
    rows = []
    # Not splitlines: JSON texts may hold U+2028 and other marks that it takes for line ends.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(
                f"{file}, line {number}: not JSON ({error.msg}). One JSON object a line; "
                "a table must be called .csv."
            ) from error
        rows.append((number, row))
    return rows


def _csv_rows(file: Path, text: str) -> list[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(io.StringIO(text, newline=""))
    rows: list[tuple[int, dict[str, Any]]] = []
    while True:
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise DataError(f"{file}, line {reader.line_num}: not CSV ({error}).") from error
        if row is None:
            return rows
        if None in row:
            raise DataError(
                f"{file}, line {reader.line_num}: more columns than the header has. "
                'Put quotes around texts with commas; part several labels by "|".'
            )
        clean: dict[str, Any] = {key.strip(): value for key, value in row.items() if value}
        if "labels" in clean:
            clean["labels"] = [label.strip() for label in clean["labels"].split("|")]
        rows.append((reader.line_num, clean))


def _topic(file: Path, number: int, row: Any) -> Topic:
    place = f"{file}, line {number}"
    if not isinstance(row, dict):
        raise DataError(
            f"{place}: a JSON object with name or prompt is expected, found {row!r:.60}."
        )
    texts = {key: row.get(key) for key in ("name", "prompt")}
    for key, value in texts.items():
        if value is not None and (not isinstance(value, str) or not value.strip()):
            raise DataError(f"{place}: {key} is {value!r:.60}; a text is expected.")
    if not (texts["name"] or texts["prompt"]):
        keys = ", ".join(map(str, row)) or "nothing"
        hint = " ".join(nearest(str(key), _FIELDS) for key in list(row)[:1])
        raise DataError(f"{place}: neither name nor prompt (found {keys}). {hint}".rstrip())
    if "labels" not in row:
        # Other keys are fine, but a slip here would train on names instead of the labels.
        for key in row:
            if str(key).strip().lower() in _LIKE_LABELS:
                raise DataError(f'{place}: unknown key "{key}". Did you mean "labels"?')
    labels = row.get("labels", [texts["name"]] if texts["name"] else None)
    if isinstance(labels, str):
        labels = [labels]
    if not isinstance(labels, list) or not labels:
        raise DataError(f"{place}: labels is {labels!r:.60}; a list of texts is expected.")
    for label in labels:
        if not isinstance(label, str) or not label.strip():
            raise DataError(f"{place}: label {label!r:.60} is not a text.")
    return Topic(tuple(labels), texts["name"], texts["prompt"])


def topic_texts(
    model: FrozenModel, topics: Sequence[Topic], question: str, chat: Chat
) -> list[str]:
    """The text of each topic: its prompt, or `question` with its name, as a chat turn or plain.

    question holds "{}" where the name goes. chat: the tokenizer's own "template" (with whatever
    system prompt it brings), a "bare" turn without one, or "none". Raises DataError for such a
    question, PromptError where the tokenizer has no such chat format.
    """
    if "{}" not in question:
        raise DataError(f'question {question!r} has no "{{}}" for the topic\'s name.')
    texts = []
    for topic in topics:
        user = topic.prompt or question.replace("{}", topic.name or "")
        texts.append(as_chat(model.tokenizer, user, chat))
    return texts


def topic_vectors(
    model: FrozenModel,
    texts: Sequence[str],
    layers: Sequence[int],
    position: int = -1,
    progress: Callable[[int], None] = lambda _done: None,
) -> Tensor:
    """Outputs of blocks `layers` at token `position` of each text: [n, layers, d_model], float32.

    position counts from the end when negative (-1 is the last token). What all texts begin with is
    computed once. Raises DataError for a text too short for the position.
    """
    if not texts:
        return torch.empty(0, len(layers), model.d_model)
    rows = [encode(model.tokenizer, text) for text in texts]
    for text, row in zip(texts, rows, strict=True):
        if not -len(row) <= position < len(row):
            raise DataError(f"position {position} in a text of {len(row)} tokens: {text!r:.80}.")
    at = torch.tensor([position % len(row) for row in rows])
    shared = common_length(rows, int(at.min()))
    prefix = SharedPrefix(model, tuple(rows[0][:shared]))
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]), reverse=True)
    result = torch.empty(len(rows), len(layers), model.d_model)
    start = 0
    while start < len(order):
        width = len(rows[order[start]]) - shared
        chosen = order[start : start + max(1, _BATCH_TOKENS // width)]
        start += len(chosen)
        # Padding on the right needs no mask: causal attention never looks to the right.
        ids = torch.zeros(len(chosen), width, dtype=torch.int64)
        for row, i in enumerate(chosen):
            ids[row, : len(rows[i]) - shared] = torch.tensor(rows[i][shared:])
        cache = prefix.for_batch(len(chosen))
        hidden = capture(model, ids, layers, at[chosen] - shared, past_key_values=cache)
        result[chosen] = hidden.float().cpu()
        progress(len(chosen))
    return result
