"""The training format: sections of metadata and labelled rows. Every rule is checked here, once.

`problems` lists everything that is wrong; whoever must not continue raises the first, whoever
inspects shows all.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
import numpy as np

from selfie_adapters.config.types import SPLITS, Split
from selfie_adapters.errors import DataError, nearest
from selfie_adapters.files.json_elements import JsonArray
from selfie_adapters.files.json_text import parse_json
from selfie_adapters.files.number_types import NaturalNumber

SPLITS_LISTED = '"train", "val" or "test"'


def split_counts(splits: Iterable[str]) -> str:
    """How many there are of each split, such as "40877 train, 4541 val"; test only if there is."""
    counts = Counter(splits)
    return ", ".join(f"{counts[s]} {s}" for s in SPLITS if s != "test" or counts[s])


LARGE_ITEM = 2**20
"""Bytes of an item from which its memory is measured before it is decoded."""
ITEM_KEYS = ("index", "labels", "split")
METADATA_KEYS: dict[str, type] = {
    "dataset_name": str,
    "filename": str,
    "layer": int,
    "source": str,
    "vector_type": str,
}


class Item(msgspec.Struct, frozen=True, gc=False):
    """One labelled row of the vector file."""

    index: NaturalNumber
    labels: Annotated[list[str], msgspec.Meta(min_length=1)]
    split: Split


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: where it is, what was found, and what to do about it."""

    place: str
    found: str
    fix: str

    def __str__(self) -> str:
        return f"{self.place}: {self.found}. {self.fix}"


def section_place(number: int, metadata: Any) -> str:
    """How messages name a section: its number from 0, and its name where it has one."""
    name = metadata.get("dataset_name") if isinstance(metadata, dict) else None
    return f"section {number}" + (f' ("{name}")' if isinstance(name, str) else "")


def problems(document: Any, needs_filename: bool = True) -> Iterator[Problem]:
    """Everything in a decoded training file that breaks the format; vectors are not looked at.

    needs_filename: False for label files, which may do without the name of a vector file.
    """
    if not isinstance(document, list):
        some = list(document)[:4] if isinstance(document, dict) else []
        keys = f" with keys {', '.join(some)}" if some else ""
        yield Problem(
            "top level",
            f"{_kind(document)}{keys} where a list of sections is expected",
            'Write [{"metadata": {…}, "vectors": […]}].',
        )
        return
    if not document:
        yield Problem("top level", "an empty list", "Give at least one section.")
    for number, section in enumerate(document):
        yield from _section_problems(number, section, needs_filename)


def _section_problems(number: int, section: Any, needs_filename: bool) -> Iterator[Problem]:
    if not isinstance(section, dict):
        yield Problem(
            f"section {number}",
            f"{_kind(section)} where an object is expected",
            "See docs/formats.md.",
        )
        return
    metadata = section.get("metadata")
    place = section_place(number, metadata)
    yield from _missing(place, section, ("metadata", "vectors"))
    if "metadata" in section:
        yield from metadata_problems(place, metadata, needs_filename)
    if "vectors" in section:
        yield from _item_problems(place, section["vectors"])


def metadata_problems(place: str, metadata: Any, needs_filename: bool) -> Iterator[Problem]:
    """Everything that is wrong with a section's metadata."""
    if not isinstance(metadata, dict):
        yield Problem(f"{place}, metadata", f"{_kind(metadata)}", "An object is expected.")
        return
    keys = [key for key in METADATA_KEYS if needs_filename or key != "filename"]
    yield from _missing(f"{place}, metadata", metadata, tuple(keys))
    for key, kind in METADATA_KEYS.items():
        value = metadata.get(key)
        if key in metadata and (not isinstance(value, kind) or isinstance(value, bool)):
            expected = {str: "a string", int: "an integer"}[kind]
            yield Problem(
                f"{place}, metadata.{key}", f"{value!r:.60} is {_kind(value)}", f"Write {expected}."
            )


def _item_problems(place: str, items: Any) -> Iterator[Problem]:
    if not isinstance(items, list | JsonArray):
        yield Problem(f"{place}, vectors", f"{_kind(items)}", "A list of items is expected.")
        return
    repeated, first_with = _repeated(items), dict[int, int]()
    for number, raw in enumerate(items):
        try:
            item = decoded(raw)
        except DataError as error:
            yield Problem(f"{place}, item {number}", str(error).rstrip("."), "Write it again.")
            continue
        if not isinstance(item, dict):
            yield Problem(
                f"{place}, item {number}",
                f"{_kind(item)} where an object is expected",
                'Write {"index": …, "labels": […], "split": "train"}.',
            )
            continue
        index, labels, split = item.get("index"), item.get("labels"), item.get("split")
        # The common case first: 131k items must pass in a moment.
        if not (
            type(index) is int
            and 0 <= index <= 2**62
            and index not in first_with
            and (split == "train" or split == "val" or split == "test")
            and type(labels) is list
            and labels
            and all(type(label) is str and label.strip() for label in labels)
        ):
            yield from _one_item_problems(f"{place}, item {number}", item, first_with)
        if type(index) is int and index in repeated:
            first_with.setdefault(index, number)


def decoded(item: Any) -> Any:
    """An item of `read_document`. Raises DataError like `parse_json`."""
    if not isinstance(item, bytes):
        return item
    if len(item) < LARGE_ITEM:
        with suppress(msgspec.MsgspecError, UnicodeDecodeError):
            return msgspec.json.decode(item)
    return parse_json(item, "the item")


def _repeated(items: Iterable[Any]) -> set[int]:
    """Rows that more than one item names; a dict of all of them would be larger than the file."""
    rows = array("q")
    for item in items:
        with suppress(DataError):
            fields = decoded(item)
            index = fields.get("index") if isinstance(fields, dict) else None
            if type(index) is int and 0 <= index <= 2**62:
                rows.append(index)
    found, counts = np.unique(np.asarray(rows), return_counts=True)
    return {*found[counts > 1].tolist()}


def _one_item_problems(
    place: str, item: dict[str, Any], first_with: dict[int, int]
) -> Iterator[Problem]:
    yield from _missing(place, item, ITEM_KEYS)
    index, labels, split = item.get("index"), item.get("labels"), item.get("split")
    if "index" in item:
        if type(index) is not int:
            yield Problem(
                f"{place}, index", f"{index!r:.40} is {_kind(index)}", "Write a row number."
            )
        elif not 0 <= index <= 2**62:
            what = "is negative" if index < 0 else "is no row of any file"
            yield Problem(f"{place}, index", f"{index:.4g} {what}", "Rows count from 0.")
        elif index in first_with:
            yield Problem(
                f"{place}, index",
                f"{index} is in item {first_with[index]} already",
                "Put all labels of a row into one item.",
            )
    if "split" in item and split not in SPLITS:
        hint = nearest(split, SPLITS) if isinstance(split, str) else f"Write {SPLITS_LISTED}."
        yield Problem(f"{place}, split", f"{split!r:.40} is none of train, val, test", hint)
    if "labels" in item:
        if not isinstance(labels, list):
            yield Problem(f"{place}, labels", f"{_kind(labels)}", "Write a list of strings.")
        elif not labels:
            yield Problem(f"{place}, labels", "an empty list", "Give a label, or remove the item.")
        else:
            for label in labels:
                if not isinstance(label, str) or not label.strip():
                    what = "a blank string" if isinstance(label, str) else _kind(label)
                    yield Problem(
                        f"{place}, labels",
                        f"{label!r:.40} is {what}",
                        "Every label must be a string.",
                    )


def _missing(place: str, mapping: dict[str, Any], keys: tuple[str, ...]) -> Iterator[Problem]:
    for key in keys:
        if key not in mapping:
            spare = [other for other in mapping if other not in keys]
            close = [other for other in spare if key in nearest(str(other), keys)[:40]]
            hint = f'Did you mean it by "{close[0]}"?' if close else "Add it."
            yield Problem(place, f'the key "{key}" is missing', hint)


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false"}
    names |= {int: "a number", float: "a number", type(None): "null"}
    return names.get(type(value), type(value).__name__)
