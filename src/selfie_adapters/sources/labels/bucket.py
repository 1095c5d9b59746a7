"""Files in a bucket that speaks S3, or in a local copy of it: listed whole, fetched checked."""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from selfie_adapters.errors import DataError, DownloadError, MissingFileError
from selfie_adapters.files import atomic_path
from selfie_adapters.http import PassingFailure, may_pass, with_retries

if TYPE_CHECKING:
    from obstore.store import ObjectStore

PUBLIC_URL = "https://s3.us-east-1.amazonaws.com/neuronpedia-datasets"
URL_VARIABLE = "SELFIE_LABELS_URL"

Parsed = TypeVar("Parsed")

_SIDE_BY_SIDE = 24
_CONNECT_TIMEOUT = "10s"
_SILENCE_TIMEOUT = "30s"  # between two pieces of a body
_WHOLE_TIMEOUT = "5min"
_MD5 = re.compile(r'"?([0-9a-f]{32})"?')
_STATUS = re.compile(r"status code: (\d{3}) ([A-Za-z -]+)")


@dataclass(frozen=True)
class StoredFile:
    """One file of the bucket as its listing shows it; size in bytes."""

    path: str
    size: int
    e_tag: str | None

    @property
    def version_name(self) -> str:
        """File name for the cache: another content has another ETag, and so another name."""
        tag = hashlib.sha256(f"{self.e_tag} {self.size}".encode()).hexdigest()[:16]
        return f"{self.path.rsplit('/', 1)[-1]}@{tag}"


@dataclass(frozen=True)
class Bucket:
    """Read access, without credentials."""

    url: str
    store: ObjectStore
    local: bool

    def folder(self, prefix: str) -> tuple[list[str], list[StoredFile]]:
        """Names of the folders just below `prefix`, and the files just below it."""
        import obstore

        found = self._listed(prefix, lambda: obstore.list_with_delimiter(self.store, prefix))
        names = [path.rstrip("/").rsplit("/", 1)[-1] for path in found["common_prefixes"]]
        return sorted(names), _files(found["objects"])

    def files(self, prefix: str) -> list[StoredFile]:
        """All files below `prefix`, however many pages the listing has."""
        import obstore

        return _files(self._listed(prefix, lambda: obstore.list(self.store, prefix).collect()))

    def read(self, file: StoredFile) -> bytes:
        """The whole file once; PassingFailure for what may go well the next time."""
        import obstore

        try:
            return obstore.get(self.store, file.path).bytes().to_bytes()
        except FileNotFoundError as error:
            raise DownloadError(f"{self.url}: {file.path} is listed but not there.") from error
        except obstore.exceptions.BaseError as error:
            raise self._failure(file.path, error) from error

    def _listed(self, prefix: str, action: Callable[[], Any]) -> Any:
        import obstore

        def attempt() -> Any:
            try:
                return action()
            except FileNotFoundError:  # a local folder that is not there
                return {"common_prefixes": [], "objects": []}
            except (obstore.exceptions.BaseError, ValueError) as error:
                raise self._failure(prefix, error) from error

        return with_retries(f"{self.url}: {prefix} cannot be listed", attempt)

    def _failure(self, path: str, error: Exception) -> Exception:
        """A refusal is final; anything else may pass."""
        status = _STATUS.search(str(error))
        # The first line without the library's own frame; what follows is for its developers.
        reason = (
            str(error).split("\n", 1)[0].rsplit(" - ", 1)[-1].removeprefix("Generic S3 error: ")
        )
        if status:
            reason = f"HTTP {status[1]} {status[2]}"
            if not may_pass(int(status[1])):
                text = f"{self.url}: {path} is refused ({reason}). Check the address."
                return DownloadError(text)
        return PassingFailure(reason)


def open_bucket(url: str | None = None) -> Bucket:
    """The bucket at `url`, else at $SELFIE_LABELS_URL, else Neuronpedia's public one.

    url: a local folder; s3://bucket; or http(s)://server[/bucket] of anything that answers S3's
    ListObjectsV2 (bucket: neuronpedia-datasets where it is not named). Raises MissingFileError
    for a folder that is not there.
    """
    from obstore.store import LocalStore, S3Store

    url = url or os.environ.get(URL_VARIABLE) or PUBLIC_URL
    parts = urlsplit(url)
    if parts.scheme in {"", "file"}:
        folder = Path(parts.path if parts.scheme else url).expanduser()
        if not folder.is_dir():
            raise MissingFileError(
                f"{folder}: no such folder. Give the folder that holds v1/, or a URL."
            )
        return Bucket(url, LocalStore(folder), local=True)
    if parts.scheme not in {"http", "https", "s3"} or not parts.netloc:
        raise DataError(
            f"{url} is not an address for labels: a folder, s3://bucket or https://server/bucket "
            "is expected."
        )
    server, _, bucket = PUBLIC_URL.rpartition("/")
    if parts.scheme == "s3":
        bucket = parts.netloc
    else:
        path, _, named = parts.path.rstrip("/").rpartition("/")
        server, bucket = f"{parts.scheme}://{parts.netloc}{path}", named or bucket
    # Everything is said here: the environment's AWS_* settings are for other buckets.
    store = S3Store(
        bucket,
        endpoint=server,
        region="us-east-1",
        skip_signature=True,
        virtual_hosted_style_request=False,
        client_options={
            "allow_http": True,
            "connect_timeout": _CONNECT_TIMEOUT,
            "read_timeout": _SILENCE_TIMEOUT,
            "timeout": _WHOLE_TIMEOUT,
        },
        retry_config={"max_retries": 0},  # `with_retries` covers damaged bodies too
    )
    return Bucket(url, store, local=False)


def read_all(
    bucket: Bucket,
    files: Sequence[StoredFile],
    cache: Path,
    parse: Callable[[StoredFile, bytes], Parsed],
    progress: Callable[[int, int], None] | None = None,
) -> list[Parsed]:
    """`parse(file, content)` of every file, in the order of `files`, fetched side by side.

    content: gunzipped. cache: folder that keeps each fetched file; what is in it already is checked
    and not fetched. progress: called with files done and files in all. Raises DownloadError.
    """

    def one(file: StoredFile) -> Parsed:
        return parse(file, _content(bucket, file, cache))

    with ThreadPoolExecutor(_SIDE_BY_SIDE) as pool:
        futures = [pool.submit(one, file) for file in files]
        try:
            for done, future in enumerate(as_completed(futures), start=1):
                future.result()
                if progress:
                    progress(done, len(files))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return [future.result() for future in futures]


def checked_content(file: StoredFile, data: bytes) -> bytes:
    """`data` gunzipped, if it is what the listing states; PassingFailure states what differs."""
    if len(data) != file.size:
        raise PassingFailure(f"{len(data)} bytes came, {file.size} are listed")
    md5 = _MD5.fullmatch(file.e_tag or "")  # not so for files that were uploaded in parts
    if md5 and hashlib.md5(data, usedforsecurity=False).hexdigest() != md5[1]:
        raise PassingFailure(f"the content does not fit its ETag {md5[1]}")
    if not data.startswith(b"\x1f\x8b"):
        if file.path.endswith(".gz"):
            raise PassingFailure("the content is not gzip")
        return data
    try:
        return gzip.decompress(data)
    except (EOFError, OSError, zlib.error) as error:
        raise PassingFailure(f"the gzip data ends early or is damaged ({error})") from error


def cached_content(file: StoredFile, cache: Path) -> bytes | None:
    """The content from the cache; None if it is not there, or not whole."""
    place = cache / file.version_name
    if not place.is_file():
        return None
    try:
        return checked_content(file, place.read_bytes())
    except PassingFailure:
        return None


def _content(bucket: Bucket, file: StoredFile, cache: Path) -> bytes:
    if not bucket.local and (content := cached_content(file, cache)) is not None:
        return content

    def attempt() -> tuple[bytes, bytes]:
        data = bucket.read(file)
        return data, checked_content(file, data)

    what, advice = f"{bucket.url}: {file.path}", "Run it again: what was fetched is in the cache."
    data, content = with_retries(what, attempt, advice)
    if not bucket.local:
        with atomic_path(cache / file.version_name) as temporary:
            temporary.write_bytes(data)
    return content


def _files(objects: Sequence[Any]) -> list[StoredFile]:
    return [StoredFile(one["path"], one["size"], one["e_tag"]) for one in objects]
