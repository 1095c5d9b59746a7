"""A Neuronpedia export on loopback: moto behind a proxy that goes wrong."""

from __future__ import annotations

import gzip
import http.client
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

BUCKET = "neuronpedia-datasets"
MODEL, SOURCE = "llama3.1-8b", "19-llamascope-res-32k"
SOURCE_ID = f"{MODEL}/{SOURCE}"
SAE = ("llama_scope_lxr_8x", "l19r_8x")
MINI = ("gpt-4o-mini", "oai_token-act-pair")
FLASH = ("gemini-2.0-flash", "np_max-act-logits")


def row(latent: int | str, text: str | None, by=MINI, old: bool = False, **more: Any) -> dict:
    """An explanation as exported; old rows hold their embedding as JSON text, new ones a list."""
    embedding = [0.125] * 256
    return {
        "id": f"cm{latent}",
        "modelId": MODEL,
        "layer": SOURCE,
        "index": str(latent),
        "authorId": "someone",
        "description": text,
        "embedding": json.dumps(embedding) if old else embedding,
        "typeName": by[1],
        "explanationModelName": by[0],
        "umap_x": 0,
        **more,
    }


def packed(rows: list[dict]) -> bytes:
    return gzip.compress(b"".join(json.dumps(one).encode() + b"\n" for one in rows), mtime=0)


def source_record(release: str | None = SAE[0], sae_id: str | None = SAE[1]) -> bytes:
    record = {"id": SOURCE, "modelId": MODEL, "hookName": "blocks.19.hook_resid_post"}
    return json.dumps(record | {"saelensRelease": release, "saelensSaeId": sae_id}).encode()


def export(
    batches: int, a_batch: int = 2, folder: str = "explanations", source_id: str = SOURCE_ID
) -> dict[str, bytes]:
    """Keys and contents of a source whose latent i has the label "label i"; every third row old."""
    files = {f"v1/{source_id}/source.jsonl": source_record()}
    for number in range(batches):
        latents = range(number * a_batch, (number + 1) * a_batch)
        rows = [row(i, f"label {i}", old=i % 3 == 0) for i in latents]
        files[f"v1/{source_id}/{folder}/batch-{number}.jsonl.gz"] = packed(rows)
    return files


class ExportServer:
    """moto's S3 server with the bucket; `url` is what --labels-url takes."""

    def __init__(self) -> None:
        from moto.s3.models import get_canned_acl, s3_backends
        from moto.server import ThreadedMotoServer

        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._server.start()
        self.port = self._server.get_host_and_port()[1]
        self.url = f"http://127.0.0.1:{self.port}/{BUCKET}"
        self._store = s3_backends["123456789012"]["aws"]
        self._public = get_canned_acl("public-read")
        if BUCKET not in self._store.buckets:  # moto's state is the process's, not the server's
            self._store.create_bucket(BUCKET, "us-east-1")
        self._store.put_bucket_acl(BUCKET, self._public)

    def fill(self, files: dict[str, bytes]) -> None:
        """Hold these files and no others."""
        for key in list(self._store.get_bucket(BUCKET).keys):
            self._store.delete_object(BUCKET, key)
        for key, content in files.items():
            self._store.put_object(BUCKET, key, content).set_acl(self._public)

    def stop(self) -> None:
        self._server.stop()


Answer = tuple[int, dict[str, str], bytes]


class Proxy:
    """Passes GETs on to `target`; `spoil(path, number_of_request, answer)` may change the answer.

    A body shorter than its Content-Length cuts the connection there. `latency` in seconds.
    """

    def __init__(self, target_port: int, bucket: str = BUCKET) -> None:
        self.seen: list[str] = []
        self.spoil: Callable[[str, int, Answer], Answer] = lambda path, number, answer: answer
        self.latency = 0.0
        proxy, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                with lock:
                    proxy.seen.append(self.path)
                    number = proxy.seen.count(self.path)
                time.sleep(proxy.latency)
                upstream = http.client.HTTPConnection("127.0.0.1", target_port)
                upstream.request("GET", self.path, headers={"Host": self.headers["Host"]})
                response = upstream.getresponse()
                headers = {k: v for k, v in response.getheaders() if k in KEPT}
                answer = response.status, headers, response.read()
                upstream.close()
                status, headers, body = proxy.spoil(self.path, number, answer)
                self.send_response(status)
                headers = {"Content-Length": str(len(body)), **headers}
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)
                if len(body) != int(headers["Content-Length"]):
                    self.close_connection = True

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # clients that were killed

        self._server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/{bucket}"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


KEPT = {"ETag", "Content-Type", "Last-Modified", "last-modified"}


@contextmanager
def proxied(server: ExportServer) -> Iterator[Proxy]:
    proxy = Proxy(server.port)
    try:
        yield proxy
    finally:
        proxy.stop()
