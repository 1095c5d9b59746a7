"""Read and write the JSON of a training file, gzip or not, with its labelled rows in columns."""

from __future__ import annotations

import gzip
from array import array
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np

from selfie_adapters.config.types import SPLITS
from selfie_adapters.dataset.schema import (
    LARGE_ITEM,
    Item,
    Problem,
    decoded,
    metadata_problems,
    problems,
    section_place,
)
from selfie_adapters.errors import DataError
from selfie_adapters.files import atomic_path, read_plain
from selfie_adapters.files.columns import Columns, StringLists
from selfie_adapters.files.json_elements import JsonArray
from selfie_adapters.files.json_text import mend_surrogates, parse_json, without_not_finite
from selfie_adapters.files.memory import MEMORY_FLOOR

_BOM = b"\xef\xbb\xbf"
_ITEMS = "vectors"
_LISTED = 10_000  # problems of one file
_SECTION = 200  # bytes of an undecoded section
_HINT = "A list of sections is expected, see docs/formats.md."


class Items(Columns[Item]):
    """The labelled rows of a section: items that only grow in number."""

    def __init__(self, items: Iterable[Item] = ()) -> None:
        self.rows = array("q")
        """Row of each item."""
        self.splits = bytearray()
        """Place of each item's split in SPLITS."""
        self._labels = StringLists()
        for item in items:
            self.append(item)

    def append(self, item: Item) -> None:
        self.rows.append(item.index)
        self.splits.append(SPLITS.index(item.split))
        self._labels.append(item.labels)

    def __len__(self) -> int:
        return len(self.rows)

    def _at(self, position: int) -> Item:
        return Item(self.rows[position], self._labels[position], SPLITS[self.splits[position]])

    def __iter__(self) -> Iterator[Item]:
        for index, labels, split in zip(self.rows, self._labels, self.splits, strict=True):
            yield Item(index, labels, SPLITS[split])


@dataclass(frozen=True)
class RawSection:
    """A section of a training file without its vectors; keys that are not known are skipped."""

    metadata: dict[str, Any]
    items: Items


def read_document(path: str | Path) -> Any:
    """The decoded JSON, where the items of its sections stay as they are written (a `JsonArray`,
    see `decoded`): a file of a million short labels is not held as objects.

    gzip is known by its first bytes, not by the name. Raises MissingFileError, or DataError naming
    the file for anything that is not JSON.
    """
    return _document(read_plain(path), str(path))


def read_raw_sections(
    path: str | Path, needs_filename: bool = True
) -> tuple[list[RawSection], list[Problem]]:
    """The sections of a training file; or none, and everything that breaks the format.

    needs_filename: False for label files, which may do without the name of a vector file.
    Raises MissingFileError, or DataError naming the file for anything that is not JSON.
    """
    return raw_sections(read_plain(path), Path(path), needs_filename)


def raw_sections(
    data: bytes, path: Path, needs_filename: bool = True
) -> tuple[list[RawSection], list[Problem]]:
    """`read_raw_sections` of a file's content."""
    if (sound := _sound_sections(data, needs_filename)) is not None:
        return sound, []
    # Slower: every item is looked at, to state what is wrong with it and where it is.
    document = _document(data, str(path))
    found = list(labels_only(path, document)) if needs_filename else []
    if found := found or list(islice(problems(document, needs_filename), _LISTED + 1)):
        if len(found) > _LISTED:
            found[-1] = Problem("the file", "more of this kind", "Mend these first.")
        return [], found
    sections = [
        RawSection(one["metadata"], Items(_item(decoded(item)) for item in one["vectors"]))
        for one in document
    ]
    return sections, []


def _item(fields: dict[str, Any]) -> Item:
    return Item(fields["index"], fields["labels"], fields["split"])


def _document(data: bytes, where: str) -> Any:
    text, sections = _typed_sections(data)
    if not sections:
        return parse_json(data, where, _HINT)  # which has the reason
    document = []
    for whole, section in zip(
        msgspec.json.decode(text, type=list[msgspec.Raw]), sections, strict=True
    ):
        # The keys of a section, those that are not known too.
        fields = parse_json(bytes(whole).replace(section.vectors, b"[]", 1), where, _HINT)
        document.append({**fields, _ITEMS: JsonArray(section.vectors)})
    return document


class _TypedSection(msgspec.Struct):
    metadata: msgspec.Raw
    vectors: msgspec.Raw


_decoder = msgspec.json.Decoder(Annotated[list[_TypedSection], msgspec.Meta(min_length=1)])
_item_decoder = msgspec.json.Decoder(Item)


def _typed_sections(data: bytes) -> tuple[bytes, list[_TypedSection]]:
    """The text, and the undecoded parts of each section; none of what is no training file by its
    form."""
    raw = data.removeprefix(_BOM)
    if raw.count(b'"metadata"') * _SECTION > max(MEMORY_FLOOR, len(raw)):
        return raw, []  # sections without anything in them
    for mended in (lambda: raw, lambda: without_not_finite(mend_surrogates(raw))):
        with suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            text = mended()
            sections = _decoder.decode(text)
            if all(memoryview(one.vectors)[:1] == b"[" for one in sections):
                return text, sections
    return raw, []


def _sound_sections(data: bytes, needs_filename: bool) -> list[RawSection] | None:
    """The sections of a file without any problem, decoded straight into their types."""
    sections = []
    try:
        for typed in _typed_sections(data)[1]:
            metadata = parse_json(bytes(typed.metadata), "metadata")
            if next(metadata_problems("", metadata, needs_filename), None) is not None:
                return None
            items = _sound_items(JsonArray(typed.vectors))
            if items is None:
                return None
            sections.append(RawSection(metadata, items))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, DataError):
        return None
    return sections or None


def _sound_items(array: JsonArray) -> Items | None:
    items = Items()
    for one in array:
        large = len(one) >= LARGE_ITEM
        item = msgspec.convert(decoded(one), Item) if large else _item_decoder.decode(one)
        if not all(map(str.strip, item.labels)):
            return None
        items.append(item)
    return items if len(np.unique(np.asarray(items.rows))) == len(items) else None


def write_document(path: str | Path, document: Any) -> None:
    """Write JSON, gzipped if the name ends in .gz."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(document_bytes(path, document))


def document_bytes(path: str | Path, document: Any) -> bytes:
    """The file `path` of a document: the same content gives the same bytes."""
    data = msgspec.json.encode(document, enc_hook=_undecoded)
    return gzip.compress(data, mtime=0) if Path(path).name.endswith(".gz") else data


def _undecoded(value: Any) -> msgspec.Raw:
    if isinstance(value, JsonArray):
        return value.text
    raise NotImplementedError(f"{type(value)} in a training file")


def labels_only(file: Path, document: Any) -> Iterator[Problem]:
    """One problem per section of a published label file, which has no `filename`; else none."""
    if not isinstance(document, list) or not document:
        return
    for number, section in enumerate(document):
        metadata = section.get("metadata") if isinstance(section, dict) else None
        if not isinstance(metadata, dict) or "filename" in metadata or not section.get("vectors"):
            return
        release, sae = _sae_of(metadata)
        yield Problem(
            section_place(number, metadata),
            "labels only: there is no filename, so the vectors are missing",
            "Make them from the SAE: selfie prepare sae "
            f"--release {release} --sae-id {sae} --labels-json {file} --output-dir data "
            f"--output-name {file.name.removesuffix('.gz').removesuffix('.json')}",
        )


def _sae_of(metadata: dict[str, Any]) -> tuple[str, str]:
    """SAELens release and id as far as the metadata states it."""
    name = str(metadata.get("dataset_name", ""))
    known = metadata.get("saelens_release"), metadata.get("saelens_sae_id")
    layer = metadata.get("layer", "…")
    guesses = {
        "Goodfire/Llama-3.1-8B": "goodfire-llama-3.1-8b-instruct",
        "Goodfire/Llama-3.3-70B": "goodfire-llama-3.3-70b-instruct",
    }
    guess = next((r for start, r in guesses.items() if name.startswith(start)), "RELEASE")
    return str(known[0] or guess), str(known[1] or f"layer_{layer}")
