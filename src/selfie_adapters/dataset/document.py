"""Read and write the JSON of a training file, gzip or not."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec

from selfie_adapters.dataset.schema import Item, Problem, metadata_problems, problems, section_place
from selfie_adapters.errors import DataError
from selfie_adapters.files import atomic_path, read_json, read_plain
from selfie_adapters.files.json_text import parse_json

_HINT = "A list of sections is expected, see docs/formats.md."


class RawSection(msgspec.Struct):
    """A section of a training file as it is stored; keys that are not known are skipped."""

    metadata: dict[str, Any]
    vectors: list[Item]


def read_document(path: str | Path) -> Any:
    """The decoded JSON; gzip is known by its first bytes, not by the name.

    Raises MissingFileError, or DataError naming the file for anything that is not JSON.
    """
    return read_json(path, _HINT)


def read_raw_sections(path: str | Path) -> tuple[list[RawSection], list[Problem]]:
    """The sections of a training file; or none, and everything that breaks the format.

    Raises MissingFileError, or DataError naming the file for anything that is not JSON.
    """
    data = read_plain(path)
    sections = _sound_sections(data)
    if sections is not None:
        return sections, []
    # Slower, and in more memory: every value is looked at, to state where it is.
    document = parse_json(data, str(path), _HINT)
    if found := list(labels_only(Path(path), document)) or list(problems(document)):
        return [], found
    return [
        RawSection(
            section["metadata"],
            [Item(item["index"], item["labels"], item["split"]) for item in section["vectors"]],
        )
        for section in document
    ], []


class _TypedSection(msgspec.Struct):
    metadata: msgspec.Raw
    vectors: list[Item]


_decoder = msgspec.json.Decoder(Annotated[list[_TypedSection], msgspec.Meta(min_length=1)])


def _sound_sections(data: bytes) -> list[RawSection] | None:
    """The sections of a file without any problem, decoded straight into their types."""
    try:
        typed = _decoder.decode(data.removeprefix(b"\xef\xbb\xbf"))
        sections = [
            RawSection(parse_json(bytes(section.metadata), "metadata"), section.vectors)
            for section in typed
        ]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, DataError):
        return None
    for section in sections:
        sound = (
            next(metadata_problems("", section.metadata, needs_filename=True), None) is None
            and len({item.index for item in section.vectors}) == len(section.vectors)
            and all(label.strip() for item in section.vectors for label in item.labels)
        )
        if not sound:
            return None
    return sections


def write_document(path: str | Path, document: Any) -> None:
    """Write JSON, gzipped if the name ends in .gz."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(document_bytes(path, document))


def document_bytes(path: str | Path, document: Any) -> bytes:
    """The file `path` of a document: the same content gives the same bytes."""
    data = msgspec.json.encode(document)
    return gzip.compress(data, mtime=0) if Path(path).name.endswith(".gz") else data


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
