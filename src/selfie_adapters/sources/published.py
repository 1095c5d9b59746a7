"""The published data files: fetched, and accepted only with the SHA-256 that is written here."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from selfie_adapters.errors import DataError, nearest
from selfie_adapters.files import atomic_path, existing_file, sha256
from selfie_adapters.http import fetch, is_address

BASE_URL = "https://raw.githubusercontent.com/agencyenterprise/selfie-adapters/main"
URL_VARIABLE = "SELFIE_DATA_URL"

_TIMEOUT = 30.0  # seconds without an answer or a further piece of it


@dataclass(frozen=True)
class PublishedFile:
    path: str  # below the base URL
    sha256: str


FILES = {
    "goodfire-8b-labels": PublishedFile(
        "data/goodfire_8b_sae_labels.json.gz",
        "4df1d2aadc62d7f922c6393087070838b63e7f412476ceb28ebd0d4a00b7b9ab",
    ),
    "vital-articles": PublishedFile(
        "data_prep/wikipedia_topics/vital_articles_level5.json.gz",
        "6cc73677d491f060a12cd3c475ee7b72860dcdefc8907f343a31182f30b86c15",
    ),
}


def fetch_published(name: str, folder: str | Path = ".") -> tuple[Path, bool]:
    """Put the file `name` into `folder`; (its path, whether it had to be fetched).

    A file that is there with the right SHA-256 stays as it is. $SELFIE_DATA_URL takes the place of
    the published repository's address. Raises DataError for an unknown name or another content,
    DownloadError where the network fails.
    """
    if name not in FILES:
        raise DataError(f"no published file {name}. {nearest(name, FILES)}")
    wanted = FILES[name]
    path = Path(folder).expanduser() / wanted.path.rsplit("/", 1)[-1]
    if path.is_file() and sha256(path) == wanted.sha256:
        return path, False
    base = os.environ.get(URL_VARIABLE) or BASE_URL
    url = f"{base.rstrip('/')}/{wanted.path}"
    data = _content(url)
    found = hashlib.sha256(data).hexdigest()
    if found != wanted.sha256:
        raise DataError(
            f"{url}: the content's SHA-256 is {found}, expected {wanted.sha256}. It is not the "
            "file that was published; nothing was written."
        )
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)
    return path, True


def _content(url: str) -> bytes:
    if url.startswith("file://"):
        return existing_file(unquote(urlsplit(url).path)).read_bytes()
    if not is_address(url):
        raise DataError(f"{url}: an http or https address is expected. Check ${URL_VARIABLE}.")
    return fetch(url, _TIMEOUT, "Check the address.")
