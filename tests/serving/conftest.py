from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from dataclasses import dataclass
from typing import Any

import pytest

from selfie_adapters.adapters import load_adapter
from selfie_adapters.commands.serve import _server
from selfie_adapters.labelling import Labeller
from selfie_adapters.model import load_model
from selfie_adapters.serving.app import make_app
from selfie_adapters.serving.guard import LOOPBACK
from selfie_adapters.serving.service import ServedAdapter, Service

JSON = {"Content-Type": "application/json"}


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.body.decode().splitlines()]

    @property
    def cells(self) -> list[dict[str, Any]]:
        return [cell for e in self.events if e["event"] == "cells" for cell in e["cells"]]


@dataclass
class Client:
    port: int
    service: Service

    def connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)

    def ask(self, method, path, body=None, headers=None) -> Answer:
        connection = self.connection()
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        try:
            connection.request(method, path, data, headers or {})
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, found, answer.read())
        finally:
            connection.close()

    def get(self, path, **headers) -> Answer:
        return self.ask("GET", path, None, headers)

    def read(self, prompt="owl", headers=None, **options) -> Answer:
        body = {"prompt": prompt, "chat": "none", **options}
        return self.ask("POST", "/api/read", body, {**JSON, **(headers or {})})

    def label(self, headers=None, **body) -> Answer:
        return self.ask("POST", "/api/label", body, {**JSON, **(headers or {})})


def wait_until(true, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


@pytest.fixture(scope="session")
def served_model(golden_dir):
    return load_model(golden_dir / "model", "float32")


@pytest.fixture(scope="session")
def served_adapters(golden_dir, served_model):
    return [
        ServedAdapter(kind, Labeller(served_model, load_adapter(file)), None)
        for kind in ("scalar_affine", "full_rank")
        if (file := golden_dir / f"adapters/{kind}_norm.safetensors")
    ]


@pytest.fixture
def serve(served_model, served_adapters):
    """Start a server on a free loopback port, with the command's own settings."""
    running = []

    def serve(limits=None, token=None, mean=None, hosts=LOOPBACK, adapters=None):
        service = Service(served_model, adapters or served_adapters, mean, limits)
        listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        server = _server(make_app(service, hosts, token), service)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        wait_until(lambda: server.started)
        running.append((server, thread, listener))
        return Client(listener.getsockname()[1], service)

    yield serve
    for server, thread, listener in running:
        server.should_exit = True
        thread.join(30)
        listener.close()
        assert not thread.is_alive()
