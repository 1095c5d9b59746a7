"""Labels a second from an export at 50 ms latency: ours against one batch at a time.

    python benchmarks/prepare_labels.py     # 1,300 batches of 128 rows; a tenth one at a time

A server on loopback, in a process of its own, answers S3's listing and the batches, each request
after 50 ms. Ours is `fetch_source_labels` with an empty cache. One at a time, as the published
script does it, asks for a batch, reads its rows with the standard library's json, and asks for the
next over the same connection. Turn by turn in one run; prints one line of JSON with the ratio of
their labels per second.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gzip
import hashlib
import http.client
import json
import multiprocessing
import os
import platform
import random
import statistics
import tempfile
import time
from multiprocessing.connection import Connection
from urllib.parse import parse_qs, quote, urlsplit
from xml.sax.saxutils import escape

from selfie_adapters.sources.labels.neuronpedia import fetch_source_labels

BUCKET = "neuronpedia-datasets"
SOURCE_ID = "bench/0-res"
FOLDER = f"v1/{SOURCE_ID}/explanations"
PAGE = 1000


def batch(number: int, rows: int) -> bytes:
    """Rows as exported: an id, a label of eight words, an embedding of 256 floats."""
    draw = random.Random(number)
    lines = []
    for latent in range(number * rows, (number + 1) * rows):
        words = " ".join(f"{draw.getrandbits(20):x}" for _ in range(8))
        one = {
            "id": f"cm{latent}",
            "modelId": "bench",
            "layer": "0-res",
            "index": str(latent),
            "description": words,
            "typeName": "oai_token-act-pair",
            "explanationModelName": "gpt-4o-mini",
            "embedding": [round(draw.uniform(-1, 1), 9) for _ in range(256)],
        }
        lines.append(json.dumps(one))
    return gzip.compress("\n".join(lines).encode(), 1)


def listing(files: dict[str, bytes], query: dict[str, list[str]]) -> bytes:
    """A page of ListObjectsV2."""
    prefix, start = query.get("prefix", [""])[0], query.get("continuation-token", [""])[0]
    names = [name for name in sorted(files) if name.startswith(prefix) and name > start]
    if "delimiter" in query:
        folders = sorted({prefix + name[len(prefix) :].split("/")[0] for name in names})
        inner = "".join(
            f"<CommonPrefixes><Prefix>{escape(folder)}/</Prefix></CommonPrefixes>"
            for folder in folders
        )
        names = []
    else:
        inner = "".join(
            f"<Contents><Key>{escape(name)}</Key><LastModified>2026-01-01T00:00:00.000Z"
            f"</LastModified><ETag>&quot;{hashlib.md5(files[name]).hexdigest()}&quot;</ETag>"
            f"<Size>{len(files[name])}</Size></Contents>"
            for name in names[:PAGE]
        )
    more = ""
    if names[PAGE:]:
        more = f"<NextContinuationToken>{escape(names[PAGE - 1])}</NextContinuationToken>"
    return (
        '<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<IsTruncated>{str(bool(more)).lower()}</IsTruncated>{more}{inner}</ListBucketResult>"
    ).encode()


def serve(batches: int, rows: int, latency: float, ready: Connection) -> None:
    """Answer GETs, each after `latency` seconds; sends its port when it is ready."""
    files = {f"{FOLDER}/batch-{n}.jsonl.gz": batch(n, rows) for n in range(batches)}

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                await asyncio.sleep(latency)
                url = urlsplit(head.split(" ", 2)[1])
                name = url.path.removeprefix(f"/{BUCKET}").lstrip("/")
                body = files.get(name) if name else listing(files, parse_qs(url.query))
                status, content = ("200 OK", body) if body is not None else ("404 No", b"")
                writer.write(
                    f"HTTP/1.1 {status}\r\nContent-Length: {len(content)}\r\n"
                    "Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n\r\n".encode()
                )
                writer.write(content)
                await writer.drain()
        writer.close()

    async def run() -> None:
        server = await asyncio.start_server(client, "127.0.0.1", 0, backlog=256)
        ready.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


def ours(port: int) -> tuple[int, float]:
    """Labels fetched and seconds taken, from an empty cache."""
    with tempfile.TemporaryDirectory() as cache:
        os.environ["SELFIE_CACHE"] = cache
        started = time.perf_counter()
        found = fetch_source_labels(SOURCE_ID, labels_url=f"http://127.0.0.1:{port}/{BUCKET}")
        return len(found), time.perf_counter() - started


def one_at_a_time(port: int, batches: int) -> tuple[int, float]:
    """The same for the first `batches` batches, asked for one after the other."""
    labels: dict[int, str] = {}
    started = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port)
    for number in range(batches):
        connection.request("GET", quote(f"/{BUCKET}/{FOLDER}/batch-{number}.jsonl.gz"))
        content = gzip.decompress(connection.getresponse().read())
        for line in content.splitlines():
            row = json.loads(line)
            labels[int(row["index"])] = row["description"]
    connection.close()
    return len(labels), time.perf_counter() - started


def measure(batches: int, rows: int, latency: float, rounds: int) -> dict[str, object]:
    """Medians of `rounds` turns; each way's labels per second, and their ratio."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    server = context.Process(target=serve, args=(batches, rows, latency, there), daemon=True)
    server.start()
    try:
        port = here.recv()
        few = max(batches // 10, min(batches, 20))
        rates: dict[str, list[float]] = {"ours": [], "one_at_a_time": []}
        for _ in range(rounds):
            count, seconds = ours(port)
            assert count == batches * rows
            rates["ours"].append(count / seconds)
            count, seconds = one_at_a_time(port, few)
            assert count == few * rows
            rates["one_at_a_time"].append(count / seconds)
    finally:
        server.kill()
        server.join()
    fast, slow = (statistics.median(rates[way]) for way in ("ours", "one_at_a_time"))
    return {
        "ratio": round(fast / slow, 2),
        "ours_labels_per_second": round(fast),
        "one_at_a_time_labels_per_second": round(slow),
        "latency_ms": latency * 1000,
        "batches": batches,
        "batches_one_at_a_time": few,
        "rows_a_batch": rows,
        "rounds": rounds,
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batches", type=int, default=1300)
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--latency", type=float, default=0.05, help="seconds per request")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(json.dumps(measure(options.batches, options.rows, options.latency, options.rounds)))


if __name__ == "__main__":
    main()
