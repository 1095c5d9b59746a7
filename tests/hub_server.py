"""A hub on loopback: folders of a directory, served the way huggingface_hub asks for them, and
written to by its uploads (a commit as JSON lines, large files through Git LFS)."""

from __future__ import annotations

import base64
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
    token: str | None

    def do_HEAD(self):
        self._answer(body=False)

    def do_GET(self):
        self._answer(body=True)

    def do_POST(self):
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = unquote(self.path.split("?")[0]).strip("/")
        self.requests.append(("POST", path, None))
        if path == "api/validate-yaml":  # its own errors are the hub's business
            return self._send_json({"errors": [], "warnings": []})
        if self.token is not None and self.headers.get("Authorization") != f"Bearer {self.token}":
            return self._refuse(401, "", "Invalid username or password.")
        if path == "api/repos/create":
            asked = json.loads(data)
            name = f"{asked['organization']}/{asked['name']}"
            status = 409 if (self.root / name).is_dir() else 200
            (self.root / name).mkdir(parents=True, exist_ok=True)
            return self._send_json({"url": f"{self._address()}/{name}"}, status=status)
        if path.endswith(".git/info/lfs/objects/batch"):
            objects = json.loads(data)["objects"]
            return self._send_json(
                {"transfer": "basic", "objects": list(map(self._place, objects))}
            )
        repo, _, rest = path.removeprefix("api/models/").partition("/preupload/")
        if rest:
            return self._send_json({"files": [_mode(file) for file in json.loads(data)["files"]]})
        repo, _, rest = path.removeprefix("api/models/").partition("/commit/")
        self._commit(self.root / repo, [json.loads(line) for line in data.splitlines()])
        return self._send_json(
            {"commitUrl": f"{self._address()}/{repo}/commit/{COMMIT}", "commitOid": COMMIT}
        )

    def do_PUT(self):
        """A large file, kept under its digest until a commit names it."""
        data = self.rfile.read(int(self.headers["Content-Length"]))
        self.requests.append(("PUT", self.path.strip("/"), None))
        target = self.root / ".lfs" / hashlib.sha256(data).hexdigest()
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(data)
        self._send_json({})

    def _address(self) -> str:
        return f"http://{self.headers['Host']}"

    def _place(self, wanted):
        href = f"{self._address()}/.lfs/{wanted['oid']}"
        return {**wanted, "actions": {"upload": {"href": href}}}

    def _commit(self, repo: Path, lines):
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                assert value["encoding"] == "base64"
                (repo / value["path"]).write_bytes(base64.b64decode(value["content"]))
            elif line["key"] == "lfsFile":
                (repo / value["path"]).write_bytes((self.root / ".lfs" / value["oid"]).read_bytes())

    def log_message(self, *_arguments):
        pass

    def _answer(self, body: bool):
        path = unquote(self.path.split("?")[0]).strip("/")
        self.requests.append((self.command, path, self.headers.get("Range")))
        if path.startswith("stored/"):
            return self._send_file(self.root / path.removeprefix("stored/"), body)
        for kind in ("api/datasets/", "api/models/"):
            if path.startswith(kind):
                return self._send_listing(path.removeprefix(kind), body)
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
        return self._send_json(answer, body)

    def _send_json(self, answer: object, body: bool = True, status: int = 200):
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.wfile.write(data)

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


def _mode(file):
    """How the hub wants a file: in the commit itself, or through Git LFS."""
    mode = "lfs" if file["path"].endswith(LARGE) else "regular"
    return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False}


def _etag(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@contextmanager
def hub_server(root: Path, token: str | None = None):
    """Serve `root/{owner}/{name}/…`; yields (address, list of requests).

    token: what uploads must be authorized with; None: nothing.
    """
    requests: list[tuple[str, str, str | None]] = []
    handler = type("Handler", (_Handler,), {"root": root, "requests": requests, "token": token})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", requests
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def use_hub(monkeypatch, address: str, cache: Path) -> None:
    """Make huggingface_hub in this process use the hub at `address` and an empty `cache`."""
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    for name, value in {
        "ENDPOINT": address,
        "HUGGINGFACE_CO_URL_TEMPLATE": template,
        "HF_HUB_OFFLINE": False,
        "HF_HUB_CACHE": str(cache),
        "HF_HUB_DISABLE_XET": True,
    }.items():
        monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
