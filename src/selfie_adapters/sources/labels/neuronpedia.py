"""Labels of a Neuronpedia source, from the export bucket or a copy of it.

The bucket holds v1/{model}/{source}/explanations/batch-N.jsonl.gz, for some sources sibling folders
`explanations-…`, and source.jsonl, which names the SAE. Fetched files stay in a cache with the
listing they belong to: a killed fetch resumes where it stopped, and a complete one
works without network.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec

from selfie_adapters.errors import DataError, DownloadError, nearest
from selfie_adapters.files import cache_dir, write_text
from selfie_adapters.sources.labels.bucket import (
    Bucket,
    StoredFile,
    cached_content,
    open_bucket,
    read_all,
)
from selfie_adapters.sources.labels.explanations import Explanation, collect_labels, parse_rows
from selfie_adapters.sources.labels.label_set import LabelSet

_BATCH = re.compile(r".*\.jsonl(\.gz)?")
_PAGE = 1000  # keys a page of S3's listing
_SHOWN_GAPS = 5
_ABANDONED = 3600.0  # seconds: an unfinished file of the cache this old has no writer any more


class Listing(msgspec.Struct):
    """What a source's folder holds, as far as labels go."""

    batches: list[StoredFile]
    source: list[StoredFile]  # source.jsonl, or nothing
    others: list[str]  # files among the batches that are none


class SourceRecord(msgspec.Struct, rename="camel"):
    """The fields of source.jsonl that matter."""

    saelens_release: str | None = None
    saelens_sae_id: str | None = None
    hook_name: str | None = None


def fetch_source_labels(
    source_id: str,
    *,
    explainer: str | None = None,
    all_explainers: bool = False,
    labels_url: str | None = None,
    expected_sae: tuple[str, str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> LabelSet:
    """All labels of a source such as "llama3.1-8b/19-llamascope-res-32k".

    explainer: a model, or model/type; all_explainers: keep every label; else the explainer that
    labels the most latents. labels_url: see `open_bucket`. expected_sae: (release, SAE id) in
    SAELens' registry, checked against source.jsonl. progress: called with files done and in all.

    Raises DataError for an id that is not model/source, an unknown source (naming near ones), an
    explainer that wrote nothing, a source of another SAE, a row that cannot be read; DownloadError
    where the network fails and the cache does not hold everything.
    """
    model, source = _parts(source_id)
    if explainer is not None and all_explainers:
        raise DataError("one explainer and all explainers are requested. Give one of the two.")
    bucket = open_bucket(labels_url)
    cache = _cache_of(bucket, model, source)
    listing, report = _listing(bucket, model, source, cache)
    record = _source_record(bucket, listing, cache)
    report += _check_sae(source_id, record, expected_sae)

    def parse(file: StoredFile, content: bytes) -> list[Explanation]:
        return list(parse_rows(f"{bucket.url}: {file.path}", content))

    parts = read_all(bucket, listing.batches, cache, parse, progress)
    if not bucket.local:
        _drop_old_versions(cache, listing)
    found = collect_labels(
        (row for part in parts for row in part),
        source_id=source_id,
        explainer=explainer,
        all_explainers=all_explainers,
    )
    if not found.labels:
        lines = "; ".join([*report, *found.report])
        raise DataError(f"{bucket.url}: {source_id} has no usable labels ({lines}).")
    origin = {
        "labels_from": "Neuronpedia",
        "neuronpedia_id": source_id,
        "labels_url": bucket.url,
        **found.origin,
    }
    if record and record.hook_name:
        origin["hook_name"] = record.hook_name
    return replace(found, origin=origin, report=report + found.report)


def _parts(source_id: str) -> tuple[str, str]:
    model, slash, source = source_id.partition("/")
    plain = all(
        part and not re.search(r"[\s/\\]", part) and set(part) != {"."} for part in (model, source)
    )
    if not slash or not plain:
        raise DataError(
            f'"{source_id}" is not a Neuronpedia source. Expected model/source, for example '
            "llama3.1-8b/19-llamascope-res-32k."
        )
    return model, source


def _cache_of(bucket: Bucket, model: str, source: str) -> Path:
    address = hashlib.sha256(bucket.url.encode()).hexdigest()[:12]
    return cache_dir() / "labels" / address / model / source


def _listing(bucket: Bucket, model: str, source: str, cache: Path) -> tuple[Listing, list[str]]:
    """The source's files, and report lines. Without network: the last listing, if all is cached."""
    saved = cache / "listing.json"
    try:
        listing = _list_source(bucket, model, source)
    except DownloadError as error:
        listing = _read_saved(saved)
        if listing is None:
            raise DownloadError(
                f"{error} Nothing of {model}/{source} is in the cache. Try again with network, "
                "or give a local copy: --labels-url FOLDER."
            ) from error
        files = [*listing.batches, *listing.source]
        missing = [file for file in files if cached_content(file, cache) is None]
        if missing:
            raise DownloadError(
                f"{error} The cache holds {len(files) - len(missing)} of {len(files)} files of "
                f"{model}/{source}; run again with network to fetch the rest."
            ) from error
        written = time.strftime("%Y-%m-%d %H:%M", time.localtime(saved.stat().st_mtime))
        return listing, [f"no network: labels from the cache of {written}", *_shape(listing)]
    if not bucket.local:
        write_text(saved, msgspec.json.encode(listing).decode())
    return listing, _shape(listing)


def _read_saved(path: Path) -> Listing | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Listing)
    except (OSError, ValueError, RecursionError, msgspec.MsgspecError):
        return None


def _list_source(bucket: Bucket, model: str, source: str) -> Listing:
    home = f"v1/{model}/{source}"
    folders, files = bucket.folder(home)
    if not folders and not files:
        raise _unknown_source(bucket, model, source)
    wanted = [
        name for name in folders if name == "explanations" or name.startswith("explanations-")
    ]
    found = [file for name in wanted for file in bucket.files(f"{home}/{name}")]
    batches = [file for file in found if _BATCH.fullmatch(file.path)]
    if not batches:
        raise DataError(
            f"{bucket.url}: {model}/{source} has no explanations (it holds "
            f"{', '.join(folders) or 'no folders'}). Give a label file instead."
        )
    for name in wanted:
        beside = [file for file in found if file.path.startswith(f"{home}/{name}/")]
        # Batches are numbered without gaps, and a listing is in the order of names: one that was
        # cut off after a page lacks batch 999.
        if len(beside) % _PAGE == 0 and _gaps(beside):
            raise DataError(
                f"{bucket.url}: the listing of {home}/{name} ends after {len(beside)} files, in "
                "the middle. The server does not follow S3's ListObjectsV2; take another copy."
            )
    return Listing(
        sorted(batches, key=_in_order),
        [file for file in files if file.path == f"{home}/source.jsonl"],
        sorted(file.path for file in found if not _BATCH.fullmatch(file.path)),
    )


def _unknown_source(bucket: Bucket, model: str, source: str) -> DataError:
    sources, _ = bucket.folder(f"v1/{model}")
    if sources:
        hint = nearest(source, sources)
        return DataError(f"{bucket.url}: {model} has no source {source}. {hint}")
    models, _ = bucket.folder("v1")
    if models:
        return DataError(f"{bucket.url}: no model {model}. {nearest(model, models)}")
    return DataError(
        f"{bucket.url}: holds no v1/ with models. Check the address; a copy needs the bucket's "
        "layout, v1/MODEL/SOURCE/explanations."
    )


def _in_order(file: StoredFile) -> tuple[str, int, str]:
    folder, _, name = file.path.rpartition("/")
    return folder, _batch_number(file), name


def _batch_number(file: StoredFile) -> int:
    number = re.search(r"batch-(\d+)\.jsonl", file.path)
    return int(number[1]) if number else -1


def _shape(listing: Listing) -> list[str]:
    """Lines that say how many batches there are, and what looks incomplete in their numbers."""
    folders: dict[str, list[StoredFile]] = {}
    for file in listing.batches:
        folders.setdefault(file.path.split("/")[-2], []).append(file)
    lines = [f"{folder}: {len(files)} batches" for folder, files in folders.items()]
    for folder, files in folders.items():
        if gaps := _gaps(files):
            shown = ", ".join(map(str, gaps[:_SHOWN_GAPS])) + (", …" if gaps[_SHOWN_GAPS:] else "")
            lines.append(f"{folder}: {len(gaps)} batches missing between the others: {shown}")
    if listing.others:
        names = ", ".join(path.rsplit("/", 1)[-1] for path in listing.others)
        lines.append(f"files passed over: {names:.200}")
    return lines


def _gaps(files: list[StoredFile]) -> list[int]:
    """Numbers below the highest that no batch has."""
    numbers = {_batch_number(file) for file in files} - {-1}
    return sorted(set(range(max(numbers, default=0))) - numbers)


def _source_record(bucket: Bucket, listing: Listing, cache: Path) -> SourceRecord | None:
    def parse(file: StoredFile, content: bytes) -> SourceRecord:
        try:
            return msgspec.json.decode(content.strip().split(b"\n", 1)[0], type=SourceRecord)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise DataError(f"{bucket.url}: {file.path}: not as expected ({error}).") from error

    return next(iter(read_all(bucket, listing.source, cache, parse)), None)


def _check_sae(
    source_id: str, record: SourceRecord | None, expected: tuple[str, str] | None
) -> list[str]:
    """Report lines; DataError if the source states that it is of another SAE."""
    if expected is None:
        return []
    named = (record.saelens_release, record.saelens_sae_id) if record else (None, None)
    if None in named:
        return [f"source.jsonl does not name the SAE of {source_id}: not checked"]
    if named != expected:
        raise DataError(
            f"{source_id} is of the SAE {named[0]} {named[1]}, according to its "
            "source.jsonl; requested is "
            f"{expected[0]} {expected[1]}. Name that SAE's own source; or fetch these labels alone "
            f"(selfie prepare labels {source_id}) and give them as a label file."
        )
    return [f"source.jsonl names the same SAE: {named[0]} {named[1]}"]


def _drop_old_versions(cache: Path, listing: Listing) -> None:
    """Remove files that the listing does not name any more, and what killed writers left."""
    wanted = {file.version_name for file in [*listing.batches, *listing.source]} | {"listing.json"}
    for place in cache.iterdir():
        abandoned = time.time() - place.stat().st_mtime > _ABANDONED
        if place.name not in wanted and (abandoned or not place.name.endswith(".part")):
            place.unlink(missing_ok=True)
