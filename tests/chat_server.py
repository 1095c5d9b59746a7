"""A chat server on loopback that does what it is told: answers, refuses, stalls, breaks off."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Reply:
    """What goes over the wire. cut: promise the whole body, send half, and hang up."""

    body: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False
    stall: float = 0.0  # seconds before the first byte


def says(text: Any, **changes: Any) -> Reply:
    """The answer of an OpenAI-compatible server."""
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    body = {"object": "chat.completion", "choices": [choice]}
    return Reply(json.dumps(body).encode(), **changes)


def writes_topics(asked: Asked) -> Reply:
    """What `prepare dataset` asks for: a prompt and three labels of a title, or their ratings."""
    text = asked.body["messages"][-1]["content"]
    if "marks" in text:
        return says('{"message": 1, "marks": [8, 8, 8]}')
    title = text.split('"')[1]
    labels = [f"{title} {k}" for k in "abc"]
    return says(json.dumps({"prompts": [f"What is {title}?"], "labels": labels}))


def refuses(status: int, message: str = "no", **headers: str) -> Reply:
    return Reply(json.dumps({"error": {"message": message}}).encode(), status, headers)


@dataclass
class Asked:
    """One request as it came in."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


class ChatServerStub:
    """`asked`: all requests so far; `most_open`: how many were ever open at the same time."""

    def __init__(self, reply: Callable[[Asked], Reply]) -> None:
        self.reply = reply
        self.asked: list[Asked] = []
        self.open = self.most_open = 0
        self.lock = threading.Lock()
        self.address = ""

    def answer(self, asked: Asked) -> Reply:
        with self.lock:
            self.asked.append(asked)
            self.open += 1
            self.most_open = max(self.most_open, self.open)
        try:
            reply = self.reply(asked)
            time.sleep(reply.stall)
            return reply
        finally:
            with self.lock:
                self.open -= 1


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    stub: ChatServerStub

    def do_GET(self):
        self._reply()

    def do_POST(self):
        self._reply()

    def log_message(self, *_arguments):
        pass

    def _reply(self):
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        asked = Asked(
            self.command, self.path, dict(self.headers), json.loads(data) if data else None
        )
        reply = self.stub.answer(asked)
        try:
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            if reply.cut:
                self.wfile.write(reply.body[: len(reply.body) // 2])
                self.close_connection = True
                return
            self.wfile.write(reply.body)
        except ConnectionError:  # the client has gone
            self.close_connection = True


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


@contextmanager
def chat_server(reply: Callable[[Asked], Reply]):
    """Serve `reply` on loopback; yields the stub, whose `address` ends in /v1."""
    stub = ChatServerStub(reply)
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"stub": stub}))
    stub.address = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
