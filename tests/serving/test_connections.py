"""Clients that hold connections: the others are served all the same."""

from __future__ import annotations

import contextlib
import socket
import time

import pytest

from selfie_adapters.serving.requests import Limits
from serving.conftest import wait_until

TOKEN = {"Authorization": "Bearer correct-horse"}
HALF = b"GET /api/info HTTP/1.1\r\nHost: localhost\r\nX-"


def connect(client, stack: contextlib.ExitStack) -> socket.socket:
    raw = stack.enter_context(socket.create_connection(("127.0.0.1", client.port), 30))
    raw.settimeout(30)
    return raw


def closed(raw: socket.socket) -> bool:
    """Whether the server has dropped the connection; what it sent before is read."""
    raw.setblocking(False)
    try:
        while raw.recv(2**16):
            pass
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def test_a_thousand_half_open_connections_do_not_lock_out_the_token_holder(serve):
    client = serve(token="correct-horse")
    with contextlib.ExitStack() as stack:
        held = []
        for number in range(1000):
            raw = connect(client, stack)
            with contextlib.suppress(OSError):  # dropped already: there are too many
                raw.sendall(HALF if number % 2 else b"")
            held.append(raw)
        started = time.monotonic()
        for _ in range(3):
            assert client.get("/api/info", **TOKEN).status == 200
        answer = client.read(headers=TOKEN, positions="0")
        assert answer.events[-1] == {"event": "done"}
        assert time.monotonic() - started < 20
        wait_until(lambda: sum(map(closed, held)) >= 1000 - Limits().idle_connections)


@pytest.mark.parametrize("sent", [b"", b"G", HALF])
def test_the_head_of_a_request_must_come_in_time(serve, sent):
    client = serve(Limits(head_seconds=0.3))
    with contextlib.ExitStack() as stack:
        raw = connect(client, stack)
        raw.sendall(sent)
        wait_until(lambda: closed(raw))


def test_a_byte_now_and_then_does_not_prolong_the_time(serve):
    client = serve(Limits(head_seconds=0.5))
    with contextlib.ExitStack() as stack:
        raw = connect(client, stack)
        started = time.monotonic()
        with contextlib.suppress(OSError):
            raw.sendall(HALF)
            while not closed(raw):
                raw.sendall(b"x")
                time.sleep(0.05)
        assert time.monotonic() - started < 20


def test_a_second_request_on_a_connection_has_its_time_too(serve):
    client = serve(Limits(head_seconds=0.5))
    with contextlib.ExitStack() as stack:
        raw = connect(client, stack)
        raw.sendall(b"GET /api/info HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert raw.recv(4096).startswith(b"HTTP/1.1 200")
        raw.sendall(HALF)
        wait_until(lambda: closed(raw))


def test_a_request_that_runs_longer_is_not_cut_off(serve):
    client = serve(Limits(head_seconds=0.2))

    def slow(_plan, _adapters, _lens):
        yield {"event": "start"}
        time.sleep(1.0)
        yield {"event": "done"}

    client.service.read = slow
    assert client.read().events[-1] == {"event": "done"}


def test_pages_that_nobody_takes_do_not_hold_their_connections(serve):
    client = serve(Limits(idle_seconds=0.3, head_seconds=0.3))
    with contextlib.ExitStack() as stack:
        raw = socket.socket()
        stack.enter_context(raw)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        raw.connect(("127.0.0.1", client.port))
        raw.settimeout(30)
        with contextlib.suppress(OSError):  # until the server will have no more
            for _ in range(200):
                raw.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert client.get("/api/info").status == 200
        time.sleep(2)  # without reading: who takes what was sent keeps the connection
        raw.setblocking(True)
        pages = b""
        with contextlib.suppress(OSError):  # closed before all was sent
            while some := raw.recv(2**16):
                pages += some
        assert pages.count(b"HTTP/1.1 200") < 100
