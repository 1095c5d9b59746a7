"""Titles of topics from a file: JSON, JSONL or plain text."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from selfie_adapters.errors import DataError
from selfie_adapters.files import existing_file, read_plain
from selfie_adapters.files.columns import Strings
from selfie_adapters.files.json_elements import JsonArray
from selfie_adapters.files.json_lines import jsonl_values
from selfie_adapters.files.json_text import check_json, parse_json, parse_json_as
from selfie_adapters.files.memory import MemoryLimit
from selfie_adapters.files.text_lines import text_lines

_EXPECTED = 'A list of titles, or {"titles": […]}, is expected.'
_KEYS = ("title", "name", "original_title")
_PLACE = 32  # bytes of a title without its text, until the repeated ones are out
LONGEST_TITLE = 300  # characters; the longest article titles have some 250


class _Titles(msgspec.Struct):
    titles: msgspec.Raw


def read_titles(path: str | Path) -> Sequence[str]:
    """Titles in the file's order, each once, with single spaces between words and none around them.

    JSON: a list of strings or {"titles": […]}; JSONL: strings, or objects with title (or name); any
    other name: one title per line. gzip or not. Raises DataError naming file and position.
    """
    file = existing_file(path)
    data = read_plain(file)
    kind = file.name.removesuffix(".gz").rsplit(".", 1)[-1].lower()
    if kind == "json":
        values = _elements(file, data)
    elif kind == "jsonl":
        values = (value for _, value in jsonl_values(str(file), data))
    else:
        values = (line for _, line in text_lines(file, data))
    limit, titles = MemoryLimit(str(file), len(data), held=len(data)), Strings()
    for number, value in enumerate(values, start=1):
        title = _title(f"{file}, title {number}", value)
        limit.take(len(title.encode()) + _PLACE)
        titles.append(title)
    if not titles:
        raise DataError(f"{file}: no titles.")
    del data, values  # what follows needs their memory
    return _each_once(titles)


def _elements(file: Path, data: bytes) -> Iterator[Any]:
    """The elements of the list in a JSON file, decoded one by one."""
    listed = _list_of(file, data)
    if listed is None:
        check_json(data, str(file), _EXPECTED)  # which has the reason, where it is no JSON
        raise DataError(f"{file}: {_EXPECTED}")
    for number, element in enumerate(JsonArray(listed), start=1):
        yield parse_json(element, f"{file}, title {number}")


def _list_of(file: Path, data: bytes) -> msgspec.Raw | None:
    for kind in (_Titles, msgspec.Raw):
        try:
            found = parse_json_as(data, str(file), kind)
        except DataError:
            continue
        listed = found.titles if isinstance(found, _Titles) else found
        if bytes(memoryview(listed)[:1]) == b"[":
            return listed
    return None


def _each_once(titles: Strings) -> Strings:
    """The titles without those that occurred before."""
    # Equal titles have equal hashes; a set of the titles would take several times their size.
    hashes = np.frombuffer(array("q", map(hash, titles)), np.int64)
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    begins = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    if len(begins) == len(titles):
        return titles
    first = np.empty(len(titles), np.int64)  # of each, the first with its hash
    first[order] = np.repeat(order[begins], np.diff(begins, append=len(titles)))
    once = Strings()
    for number, (title, before) in enumerate(zip(titles, first, strict=True)):
        if before == number or titles[int(before)] != title:
            once.append(title)
    return once


def _title(place: str, value: Any) -> str:
    if isinstance(value, dict):
        value = next((value[key] for key in _KEYS if key in value), None)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{place}: {value!r:.60}; a string is expected, or an object with title.")
    if len(value) > LONGEST_TITLE:
        raise DataError(
            f"{place}: {len(value):,} characters; a title has at most {LONGEST_TITLE}. Is "
            "this a title?"
        )
    return " ".join(value.split())
