"""Labels as one JSON object, {"<latent>": "label"}, read entry by entry.

Decoded as a whole, short labels would take many times the size of their file.
"""

from __future__ import annotations

import json
import re
from typing import NoReturn

import msgspec

from selfie_adapters.errors import DataError
from selfie_adapters.files.json_text import check_json, mend_surrogates
from selfie_adapters.sources.labels.explanations import latent_number
from selfie_adapters.sources.labels.label_set import LabelColumns, LabelSet

_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_START = re.compile(rb"\s*\{\s*")
_KEY = re.compile(rb"(%b)\s*:\s*" % _STRING, re.DOTALL)
_LABEL = re.compile(rb"(%b|null)\s*([,}])\s*" % _STRING, re.DOTALL)
_SHOWN = 200  # bytes of a wrong value that are looked at


def read_mapping(place: str, content: bytes, shapes: str) -> LabelSet:
    """The labels in `content`, an object. `shapes` states what a label file looks like.

    Raises DataError with `place`, and the key or the line, for anything else.
    """
    table, blank, entries = LabelColumns(), 0, 0
    start = _START.match(content)
    position = start.end() if start else 0
    ended = content[position : position + 1] == b"}"
    position += ended
    while not ended:
        key = _KEY.match(content, position)
        value = _LABEL.match(content, key.end()) if key else None
        try:
            if key is None or value is None:
                raise ValueError
            latent = latent_number(_decoded(key[1]))
            text = "" if value[1] == b"null" else _decoded(value[1]).strip()
        except (ValueError, msgspec.MsgspecError):
            _refuse(place, content, position, shapes)
        entries += 1
        blank += not text
        if text:
            table.add(latent, text)
        ended, position = value[2] == b"}", value.end()
    if content[position:].strip():
        check_json(content, place, shapes)
    if (twice := next(table.repeats(), None)) is not None:
        raise DataError(f"{place}: latent {twice} occurs twice. Give each once.")
    report = [f"{entries} entries, {table.count} labels"]
    if blank:
        report.append(f"{blank} empty labels, dropped")
    return LabelSet(table, report=report)


def _decoded(text: bytes) -> str:
    try:
        return msgspec.json.decode(text, type=str)
    except msgspec.DecodeError:
        return msgspec.json.decode(mend_surrogates(text), type=str)


def _refuse(place: str, content: bytes, position: int, shapes: str) -> NoReturn:
    """State what is wrong with the entry at `position`, or with the text as a whole."""
    check_json(content, place, shapes)
    match = _KEY.match(content, position)
    assert match is not None  # it is JSON, and not at the end of the object
    key = _decoded(match[1])
    if key in ("metadata", "vectors"):
        raise DataError(
            f"{place}: one section where a list of sections is expected. Put it in [ ]."
        )
    try:
        latent_number(key)
    except ValueError as error:
        raise DataError(f'{place}, key "{key:.40}": {error} {shapes}') from error
    shown = content[match.end() : match.end() + _SHOWN].decode(errors="replace")
    try:
        found = repr(json.JSONDecoder().raw_decode(shown)[0])
    except ValueError:
        found = shown
    raise DataError(f'{place}, key "{key}": the label is {found:.40}; a string is expected.')
