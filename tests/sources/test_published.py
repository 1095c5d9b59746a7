from __future__ import annotations

import hashlib
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from export_bucket import Proxy
from selfie_adapters.errors import DataError, DownloadError, MissingFileError
from selfie_adapters.sources import published
from selfie_adapters.sources.published import FILES, PublishedFile, fetch_published

CONTENT = b"labels\n" * 5000


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format, *args):
        pass


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """A mirror with a file of known content in the place of the published one, behind a proxy."""
    path = FILES["goodfire-8b-labels"].path
    (tmp_path / "mirror/data").mkdir(parents=True)
    (tmp_path / "mirror" / path).write_bytes(CONTENT)
    known = PublishedFile(path, hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.setitem(FILES, "goodfire-8b-labels", known)
    monkeypatch.setattr("selfie_adapters.http.FIRST_WAIT", 0.001)
    handler = partial(Quiet, directory=tmp_path / "mirror")
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    proxy = Proxy(server.server_address[1])
    monkeypatch.setenv("SELFIE_DATA_URL", proxy.url.rpartition("/")[0] + "/")
    yield proxy
    proxy.stop()
    server.shutdown()
    server.server_close()


def test_the_file_is_fetched_once(mirror, tmp_path):
    path, fetched = fetch_published("goodfire-8b-labels", tmp_path / "out")
    assert path == tmp_path / "out/goodfire_8b_sae_labels.json.gz"
    assert (path.read_bytes(), fetched) == (CONTENT, True)
    assert fetch_published("goodfire-8b-labels", tmp_path / "out") == (path, False)
    assert mirror.seen == ["/data/goodfire_8b_sae_labels.json.gz"]


def test_a_damaged_file_is_replaced(mirror, tmp_path):
    path, _ = fetch_published("goodfire-8b-labels", tmp_path)
    path.write_bytes(CONTENT[:100])
    assert fetch_published("goodfire-8b-labels", tmp_path) == (path, True)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize(
    "change",
    [
        lambda status, headers, body: (503, {}, b""),
        lambda status, headers, body: (
            status,
            headers | {"Content-Length": str(len(body))},
            body[:1000],
        ),
    ],
)
def test_one_failure_is_got_over(mirror, tmp_path, change):
    mirror.spoil = lambda path, number, answer: change(*answer) if number == 1 else answer
    path, _ = fetch_published("goodfire-8b-labels", tmp_path)
    assert path.read_bytes() == CONTENT
    assert len(mirror.seen) == 2


@pytest.mark.parametrize(
    ("change", "error", "message", "requests"),
    [
        (lambda s, h, b: (503, {}, b""), DownloadError, "status 503, .*6 attempts", 6),
        (lambda s, h, b: (404, {}, b""), DownloadError, "status 404, .*Check the address", 1),
        (lambda s, h, b: (s, h, b + b"x"), DataError, "SHA-256 is .* nothing was written", 1),
    ],
)
def test_what_stays_wrong_leaves_no_file(mirror, tmp_path, change, error, message, requests):
    mirror.spoil = lambda path, number, answer: change(*answer)
    with pytest.raises(error, match=message):
        fetch_published("goodfire-8b-labels", tmp_path / "out")
    assert not list(tmp_path.glob("out/*"))
    assert len(mirror.seen) == requests


def test_no_network(mirror, tmp_path):
    mirror.stop()
    with pytest.raises(DownloadError, match="no complete answer.*refused"):
        fetch_published("goodfire-8b-labels", tmp_path)


def test_a_file_address_is_read_and_checked(mirror, tmp_path, monkeypatch):
    monkeypatch.setenv("SELFIE_DATA_URL", (tmp_path / "mirror").as_uri())
    path, fetched = fetch_published("goodfire-8b-labels", tmp_path / "out")
    assert (path.read_bytes(), fetched) == (CONTENT, True)
    with pytest.raises(MissingFileError):
        fetch_published("vital-articles", tmp_path / "out")


@pytest.mark.parametrize("address", ["nowhere", "http://", "ftp://x", "http://[::1"])
def test_an_address_that_is_none(monkeypatch, tmp_path, address):
    monkeypatch.setenv("SELFIE_DATA_URL", address)
    with pytest.raises(DataError, match=r"Check \$SELFIE_DATA_URL"):
        fetch_published("vital-articles", tmp_path)


def test_an_unknown_file_gets_the_nearest(tmp_path):
    with pytest.raises(DataError, match='Did you mean "vital-articles"'):
        fetch_published("vital-article", tmp_path)


def test_the_published_places():
    assert published.BASE_URL.startswith("https://raw.githubusercontent.com/")
    assert {file.path for file in FILES.values()} == {
        "data/goodfire_8b_sae_labels.json.gz",
        "data_prep/wikipedia_topics/vital_articles_level5.json.gz",
    }
