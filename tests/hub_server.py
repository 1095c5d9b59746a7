"""A hub on loopback: folders of a directory, served the way huggingface_hub asks for them."""

from __future__ import annotations

import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

COMMIT = "c0ffee" * 6 + "c0ff"
LARGE = (".safetensors", ".pt", ".pth", ".npz")  # what a hub keeps elsewhere and redirects to


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    root: Path
    requests: list[tuple[str, str, str | None]]  # (method, path, Range)
    slow: float

    def do_HEAD(self):
        self._answer(body=False)

    def do_GET(self):
        self._answer(body=True)

    def log_message(self, *_arguments):
        pass

    def _answer(self, body: bool):
        path = unquote(self.path.split("?")[0]).strip("/")
        self.requests.append((self.command, path, self.headers.get("Range")))
        if path.startswith("stored/"):
            return self._send_file(self.root / path.removeprefix("stored/"), body)
        if path.startswith("api/datasets/"):
            return self._send_listing(path.removeprefix("api/datasets/"), body)
        # data sets lie in the same folders as models; only their addresses differ
        owner, name, *rest = path.removeprefix("datasets/").split("/")
        if rest[:1] != ["resolve"] or not (self.root / owner / name).is_dir():
            return self._refuse(404, "RepoNotFound", "Repository not found")
        file = self.root / owner / name / "/".join(rest[2:])
        if not file.is_file():
            return self._refuse(404, "EntryNotFound", "Entry not found")
        if file.suffix not in LARGE:
            return self._send_file(file, body)
        self.send_response(302)
        self.send_header("Location", f"/stored/{file.relative_to(self.root)}")
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("X-Linked-Etag", f'"{_etag(file)}"')
        self.send_header("X-Linked-Size", str(file.stat().st_size))
        self.send_header("Content-Length", "0")
        self.end_headers()
        return None

    def _send_listing(self, path: str, body: bool):
        owner, name, *kind = path.split("/")[:3]
        folder = self.root / owner / name
        if not folder.is_dir():
            return self._refuse(404, "RepoNotFound", "Repository not found")
        files = sorted(p for p in folder.rglob("*") if p.is_file())
        names = [file.relative_to(folder).as_posix() for file in files]
        answer: object = {
            "id": f"{owner}/{name}",
            "sha": COMMIT,
            "siblings": [{"rfilename": name} for name in names],
        }
        if kind == ["tree"]:
            answer = [
                {"type": "file", "path": name, "size": file.stat().st_size, "oid": _etag(file)}
                for name, file in zip(names, files, strict=True)
            ]
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.wfile.write(data)
        return None

    def _refuse(self, status: int, code: str, message: str):
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", message)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send_file(self, file: Path, body: bool):
        data = file.read_bytes()
        status, start = 200, 0
        if wanted := self.headers.get("Range"):
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            status, start = 206, int(first)
            total = len(data)
            data = data[start : int(last) + 1 if last else None]
        self.send_response(status)
        self.send_header("ETag", f'"{_etag(file)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(data)))
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{start + len(data) - 1}/{total}")
        self.end_headers()
        if body:
            self.wfile.write(data)


def _etag(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@contextmanager
def hub_server(root: Path):
    """Serve `root/{owner}/{name}/…`; yields (address, list of requests)."""
    requests: list[tuple[str, str, str | None]] = []
    handler = type("Handler", (_Handler,), {"root": root, "requests": requests})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", requests
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
