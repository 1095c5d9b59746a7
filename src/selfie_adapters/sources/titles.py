"""Titles of topics from a file: JSON, JSONL or plain text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from selfie_adapters.errors import DataError
from selfie_adapters.files import existing_file, read_plain

_KEYS = ("title", "name", "original_title")
LONGEST_TITLE = 300  # characters; the longest article titles have some 250


def read_titles(path: str | Path) -> list[str]:
    """Titles in the file's order, each once, blanks around and inside them made one.

    JSON: a list of texts or {"titles": […]}; JSONL: texts, or objects with title (or name); any
    other name: one title a line. gzip or not. Raises DataError naming file and place.
    """
    file = existing_file(path)
    try:
        text = read_plain(file).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not UTF-8 text ({error}). Save it as UTF-8.") from error
    kind = file.name.removesuffix(".gz").rsplit(".", 1)[-1].lower()
    lines = [line for line in text.split("\n") if line.strip()]
    if kind == "json":
        whole = _parsed(str(file), text)
        values = whole.get("titles") if isinstance(whole, dict) else whole
        if not isinstance(values, list):
            raise DataError(f'{file}: a list of titles, or {{"titles": […]}}, is expected.')
    elif kind == "jsonl":
        values = [_parsed(f"{file}, title {i}", line) for i, line in enumerate(lines, start=1)]
    else:
        values = lines
    titles = dict.fromkeys(_title(f"{file}, title {i}", v) for i, v in enumerate(values, start=1))
    if not titles:
        raise DataError(f"{file}: no titles.")
    return list(titles)


def _parsed(place: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place}: not JSON ({error}).") from error


def _title(place: str, value: Any) -> str:
    if isinstance(value, dict):
        value = next((value[key] for key in _KEYS if key in value), None)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{place}: {value!r:.60}; a text is expected, or an object with title.")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{place}: half a character at place {error.start}.") from error
    if len(value) > LONGEST_TITLE:
        raise DataError(
            f"{place}: {len(value):,} characters; a title has at most {LONGEST_TITLE}. Is it one?"
        )
    return " ".join(value.split())
