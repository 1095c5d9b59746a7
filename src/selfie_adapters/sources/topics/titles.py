"""Titles of topics from a file: JSON, JSONL or plain text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from selfie_adapters.errors import DataError
from selfie_adapters.files import existing_file, read_plain
from selfie_adapters.files.json_lines import jsonl_values
from selfie_adapters.files.json_text import parse_json

_EXPECTED = 'A list of titles, or {"titles": […]}, is expected.'
_KEYS = ("title", "name", "original_title")
LONGEST_TITLE = 300  # characters; the longest article titles have some 250


def read_titles(path: str | Path) -> list[str]:
    """Titles in the file's order, each once, with single spaces between words and none around them.

    JSON: a list of strings or {"titles": […]}; JSONL: strings, or objects with title (or name); any
    other name: one title per line. gzip or not. Raises DataError naming file and position.
    """
    file = existing_file(path)
    data = read_plain(file)
    kind = file.name.removesuffix(".gz").rsplit(".", 1)[-1].lower()
    if kind == "json":
        whole = parse_json(data, str(file), _EXPECTED)
        values = whole.get("titles") if isinstance(whole, dict) else whole
        if not isinstance(values, list):
            raise DataError(f"{file}: {_EXPECTED}")
    elif kind == "jsonl":
        values = [value for _, value in jsonl_values(str(file), data)]
    else:
        values = _lines(file, data)
    titles = dict.fromkeys(_title(f"{file}, title {i}", v) for i, v in enumerate(values, start=1))
    if not titles:
        raise DataError(f"{file}: no titles.")
    return list(titles)


def _lines(file: Path, data: bytes) -> list[str]:
    lines = []
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        try:
            lines.append(line.decode())
        except UnicodeDecodeError as error:
            raise DataError(
                f"{file}, line {number}: not UTF-8 text ({error.reason}). Save it as UTF-8."
            ) from error
    return [line for line in lines if line.strip()]


def _title(place: str, value: Any) -> str:
    if isinstance(value, dict):
        value = next((value[key] for key in _KEYS if key in value), None)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{place}: {value!r:.60}; a text is expected, or an object with title.")
    if len(value) > LONGEST_TITLE:
        raise DataError(
            f"{place}: {len(value):,} characters; a title has at most {LONGEST_TITLE}. Is it one?"
        )
    return " ".join(value.split())
