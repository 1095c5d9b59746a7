from __future__ import annotations

import asyncio
import dataclasses
import http.client
import json
import math
import re
import socket
import threading
import time
from typing import ClassVar

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from selfie_adapters.labelling.confidence import Confidence
from selfie_adapters.reading.controls import random_control
from selfie_adapters.reading.plan import plan_reading
from selfie_adapters.reading.read import read_cells
from selfie_adapters.serving.app import _body
from selfie_adapters.serving.requests import Limits
from serving.conftest import JSON, wait_until
from serving.test_requests import GARBLED, npy


def two_owls(model):
    return model, "two owls", "1:", "2:6", "none"


OCTETS = {"Content-Type": "application/octet-stream"}


# answers


def test_cells_come_as_the_library_reads_them(serve, served_model, served_adapters):
    answer = serve().read("two owls", layers="1:", positions="2:6")
    assert answer.status == 200
    assert [event["event"] for event in answer.events] == ["start", "cells", "scale", "done"]
    plan = plan_reading(*two_owls(served_model))
    gains = random_control(served_adapters[0].labeller, plan).gains
    scale = answer.events[2]["measure"]
    assert scale["zero"] == pytest.approx(max(0.0, *gains), abs=1e-3)
    assert len(gains) == scale["random"] == 8
    assert scale["full"] == pytest.approx(scale["zero"] + 3)
    plan = plan_reading(*two_owls(served_model))
    batches = read_cells(served_adapters[0].labeller, plan, batch_size=16)
    expected = [cell for batch in batches for cell in batch]
    assert [(c["layer"], c["position"]) for c in answer.cells] == plan.cells()
    assert [c["log_prob"] for c in answer.cells] == [c.log_prob for c in expected]
    assert [c["gain"] for c in answer.cells] == pytest.approx([c.gain for c in expected])
    start = answer.events[0]
    assert start["total"] == 8
    assert (start["layers"], start["positions"]) == ([1, 2], [2, 3, 4, 5])
    assert "".join(token["text"] for token in start["tokens"]) == "two·owls"


def test_two_adapters_are_read_beside_each_other(serve):
    client = serve()
    answer = client.read(positions="0", adapters=[1, 0])
    assert [r["name"] for r in answer.events[0]["readings"]] == ["full_rank", "scalar_affine"]
    first, second = (
        [c["raw"] for e in answer.events if e.get("reading") == i for c in e.get("cells", ())]
        for i in (0, 1)
    )
    assert first == [c["raw"] for c in client.read(positions="0", adapters=[1]).cells]
    assert second == [c["raw"] for c in client.read(positions="0").cells]
    assert first != second


def test_colour_is_confidence_only_where_every_adapter_has_one(serve, served_adapters):
    calibrated = dataclasses.replace(served_adapters[0], confidence=Confidence({}, 1.0, 0.5))
    client = serve(adapters=[calibrated, served_adapters[1]])
    alone = client.read(positions="0")
    assert alone.events[0]["readings"][0]["measure"]["name"] == "confidence"
    assert alone.cells[0]["confidence"] == pytest.approx(1 / (1 + math.exp(-1)))
    both = client.read(positions="0", adapters=[0, 1])
    assert [r["measure"]["name"] for r in both.events[0]["readings"]] == ["gain", "gain"]


def test_the_mean_is_subtracted_and_its_layers_are_the_default(serve, tmp_path):
    path = tmp_path / "mean.safetensors"
    save_file({"layer_1": torch.ones(48)}, path)
    client = serve(mean=(str(path), [1]))
    found, plain = client.read(), serve().read(layers="1")
    assert [c["layer"] for c in found.cells] == [1, 1, 1]
    assert [c["raw"] for c in found.cells] != [c["raw"] for c in plain.cells]
    refused = client.read(layers="0")
    assert refused.events[-1]["event"] == "error"
    assert "no mean vector layer_0" in refused.events[-1]["message"]


def test_vectors_are_labelled(serve, golden_dir, served_adapters):
    client = serve()
    (vectors,) = load_file(golden_dir / "vectors.safetensors").values()
    labelled = served_adapters[0].labeller.label(vectors[:2], (1.0, 2.0))
    expected = [
        (i, a.scale, pytest.approx(a.gain, abs=1e-5)) for i, row in enumerate(labelled) for a in row
    ]
    ask = "/api/label?ask=%7B%22scales%22%3A%5B1.0%2C2.0%5D%7D"
    for answer in (
        client.label(vectors=vectors[:2].tolist(), scales=[1.0, 2.0]),
        client.ask("POST", ask, npy(vectors[:2].numpy()), OCTETS),
        client.ask("POST", ask, json.dumps(vectors[:2].tolist()).encode(), OCTETS),
    ):
        rows = [row for e in answer.events if e["event"] == "labels" for row in e["labels"]]
        assert [(row["index"], row["scale"], row["gain"]) for row in rows] == expected
        assert answer.events[-1] == {"event": "done"}


def test_labels_are_sent_with_nothing_invisible_in_them(serve):
    cells = serve().read("owl").cells
    assert all(ord(c) >= 32 for cell in cells for c in cell["label"] + cell["raw"])
    assert any("\\x" in cell["label"] for cell in cells)


def test_what_is_loaded_is_told(serve):
    info = serve().get("/api/info").json
    assert (info["n_layers"], info["d_model"]) == (3, 48)
    assert [adapter["name"] for adapter in info["adapters"]] == ["scalar_affine", "full_rank"]


def test_the_page_holds_all_it_needs_and_its_policy_allows_nothing_else(serve):
    page = serve().get("/")
    text = page.body.decode()
    assert page.status == 200
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert not re.search(r"https?://|\bsrc=|\bon\w+=\"|style=\"|url\(", text)
    assert page.headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in page.headers
    assert "server" not in page.headers


# refusals


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        ({"prompt": ""}, 400, "the prompt is empty"),
        ({"prompt": "<|eot_id|>"}, 400, "only special tokens"),
        ({"prompt": "x" * 100_000}, 413, "100,000 characters; 20,000 are read at most"),
        ({"prompt": "x" * 500}, 413, "1,500 cells are asked for; 1,000"),
        ({"prompt": "x" * 450, "layers": "0"}, 413, "450 tokens; 400 are read at most"),
        ({"prompt": "owl", "layers": "7"}, 400, "layers: 7 is out of range"),
        ({"prompt": "owl", "positions": "x"}, 400, "positions: 'x' is neither"),
        ({"prompt": "owl", "adapters": [5]}, 400, "adapters: choose from 0 to 1"),
        ({"prompt": "owl", "layers": "0:1," * 400}, 400, "layers: String should have at most"),
    ],
)
def test_a_reading_that_cannot_be_is_refused(serve, options, status, message):
    client = serve(Limits(prompt_tokens=400, cells=1000))
    if options["prompt"] == "x" * 500:
        client.service.limits = dataclasses.replace(client.service.limits, prompt_tokens=1000)
    answer = client.read(**options)
    assert answer.status == status
    assert re.search(message, answer.json["error"]), answer.json
    assert client.service.worker.taken == 0


@pytest.mark.parametrize(
    ("vectors", "status", "message"),
    [
        ([1.0] * 47, 400, "width 47; the model .* has 48"),
        ([math.nan] * 48, 400, "NaN|JSON"),
        ([[0.5] * 48] * 200, 413, "200 labels are asked for; 128"),
        ([], 400, "d_model"),
        ("x", 400, "vectors"),
        ([True] * 48, 400, "a list of numbers"),
        ([[0.5] * 48, [0.5]], 400, "of one length"),
        ([1e300] * 48, 400, "NaN or infinity"),
    ],
)
def test_vectors_that_cannot_be_labelled_are_refused(serve, vectors, status, message):
    answer = serve().label(vectors=vectors)
    assert answer.status == status
    assert re.search(message, answer.json["error"]), answer.json


def test_infinity_in_a_file_is_refused(serve):
    body = npy(np.full(48, np.inf, np.float32))
    answer = serve().ask("POST", "/api/label", body, OCTETS)
    assert (answer.status, answer.json) == (400, {"error": "the vectors hold NaN or infinity."})


@pytest.mark.parametrize("value", [0.0, 1e30])
def test_zero_and_huge_vectors_are_labelled(serve, value):
    answer = serve().label(vectors=[value] * 48)
    assert answer.events[-1] == {"event": "done"}


def test_a_body_that_is_too_long_is_refused_before_it_is_read(serve):
    client = serve(Limits(body_bytes=1000))
    assert client.read("x" * 2000).status == 413
    with socket.create_connection(("127.0.0.1", client.port), 30) as raw:
        raw.sendall(
            b"POST /api/read HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n" + b"3e8\r\n" + b"x" * 1000 + b"\r\n" * 1
        )
        raw.sendall(b"3e8\r\n" + b"x" * 1000 + b"\r\n")
        assert b" 413 " in raw.recv(4096).split(b"\r\n")[0]
    wait_until(lambda: client.service.worker.taken == 0)


def test_a_body_that_comes_too_slowly_is_refused(serve):
    client = serve(Limits(body_seconds=0.2))
    with socket.create_connection(("127.0.0.1", client.port), 30) as raw:
        raw.sendall(
            b"POST /api/read HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 100\r\n\r\n{"
        )
        assert b" 408 " in raw.recv(4096).split(b"\r\n")[0]
    wait_until(lambda: client.service.worker.taken == 0)


def test_many_small_pieces_cost_no_more_than_their_bytes():
    class Request:
        headers: ClassVar = {}

        async def stream(self):
            for _ in range(200_000):
                yield b"x"

    started = time.perf_counter()
    assert asyncio.run(_body(Request(), Limits())) == b"x" * 200_000
    assert time.perf_counter() - started < 5  # a sum over the pieces so far: hours


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_results_that_are_no_numbers_end_in_an_error(serve, value):
    client = serve()
    row = {"index": 0, "scale": 1.0, "label": "x", "gain": value, "confidence": None}
    events = [{"event": "start"}, {"event": "labels", "labels": [row]}, {"event": "done"}]
    client.service.label = lambda *_: iter(events)
    answer = client.label(vectors=[0.5] * 48)
    assert [event["event"] for event in answer.events] == ["start", "error"]
    assert "NaN or infinity (labels.0.gain)" in answer.events[-1]["message"]
    wait_until(lambda: client.service.worker.taken == 0)


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"--x\r\n\r\n--x--", {"Content-Type": "multipart/form-data; boundary=x"}),
        (b"{", JSON),
        (b"[" * 100_000, JSON),
        (b'{"vectors": ' + b"[" * 500 + b"]" * 500 + b"}", JSON),
        (b'{"vectors": [1' + b"0" * 5000 + b"]}", JSON),
        (b"\x80\x04K\x01.", OCTETS),
        (b"PK\x03\x04" + bytes(100), OCTETS),
        (npy(np.zeros(48, np.complex64)), OCTETS),
        (npy(np.array(["a"] * 48)), OCTETS),
        (npy(np.full(48, np.nan, np.float32)), OCTETS),
        (GARBLED, OCTETS),
        (b"", OCTETS),
        (b"", JSON),
    ],
)
def test_malformed_uploads_are_refused_in_one_sentence(serve, body, headers, recwarn):
    client = serve()
    answer = client.ask("POST", "/api/label", body, headers)
    assert 400 <= answer.status < 500
    assert 10 < len(answer.json["error"]) < 400
    assert "\n" not in answer.json["error"]
    assert client.service.worker.taken == 0
    assert client.get("/api/info").status == 200


def test_a_client_that_goes_in_the_middle_of_its_body_leaves_no_traceback(serve, caplog):
    client = serve()
    with socket.create_connection(("127.0.0.1", client.port), 30) as raw:
        raw.sendall(
            b"POST /api/read HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 100\r\n\r\n{"
        )
        wait_until(lambda: client.service.worker.taken == 1)
    wait_until(lambda: client.service.worker.taken == 0)
    assert client.get("/api/info").status == 200
    assert not [record for record in caplog.records if record.exc_info]


# who may ask


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", ""])
@pytest.mark.parametrize("path", ["/", "/api/info"])
def test_another_host_name_is_not_answered(serve, host, path):
    assert serve().get(path, Host=host).status in (400, 421)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:8321", "[::1]:8321"])
def test_this_machines_own_names_are(serve, host):
    assert serve().get("/api/info", Host=host).status == 200


def test_a_page_from_elsewhere_may_not_ask(serve):
    client = serve()
    own = f"http://127.0.0.1:{client.port}"
    assert client.read(headers={"Origin": own}, positions="0").status == 200
    for origin in ("http://evil.example", "null", own + "1", "https://127.0.0.1"):
        assert client.read(headers={"Origin": origin}).status == 403
    # what a form or a simple request can send without the browser asking first
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        assert client.read(headers={"Content-Type": kind}).status == 415
    assert client.ask("OPTIONS", "/api/read").status == 405


def test_the_token_is_asked_for_everywhere_but_on_the_page(serve):
    client = serve(token="correct-horse")
    assert client.get("/").status == 200
    assert "correct-horse" not in client.get("/").body.decode()
    for wrong in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "correct-horse"}):
        assert client.get("/api/info", **wrong).status == 401
        assert client.read(headers=wrong).status == 401
        assert client.label(headers=wrong, vectors=[0.0] * 48).status == 401
    right = {"Authorization": "Bearer correct-horse"}
    assert client.get("/api/info", **right).status == 200
    assert client.read(headers=right, positions="0").events[-1] == {"event": "done"}
    assert client.get("/api/info", Authorization="Bearer \xe9").status == 401


def test_bound_to_every_address_any_host_name_will_do_with_the_token(serve):
    client = serve(token="correct-horse", hosts=None)
    right = {"Authorization": "Bearer correct-horse", "Host": "machine.example"}
    assert client.get("/api/info", **right).status == 200
    assert client.get("/api/info", Host="machine.example").status == 401


def test_an_unknown_path_is_told_so(serve):
    answer = serve().get("/nothing")
    assert (answer.status, answer.json) == (404, {"error": "Not Found"})


# places


class Gate:
    """In place of the model's work: one event, then it waits to be let on."""

    def __init__(self, client) -> None:
        self.open, self.begun = threading.Event(), threading.Semaphore(0)
        client.service.read = self.read

    def read(self, _plan, _adapters, _lens):
        self.begun.release()
        yield {"event": "start"}
        assert self.open.wait(30)
        yield {"event": "done"}


def begin(client):
    connection = client.connection()
    body = json.dumps({"prompt": "owl", "chat": "none"})
    connection.request("POST", "/api/read", body, JSON)
    return connection


def test_when_every_place_is_taken_others_are_told_to_come_back(serve):
    client = serve(Limits(slots=3))
    gate = Gate(client)
    connections = [begin(client) for _ in range(3)]
    assert gate.begun.acquire(timeout=30)
    wait_until(lambda: client.service.worker.taken == 3)
    refused = client.read()
    assert refused.status == 429
    assert refused.headers["retry-after"] == "2"
    assert "All 3 slots are taken" in refused.json["error"]
    gate.open.set()
    for connection in connections:
        assert connection.getresponse().read().endswith(b'{"event": "done"}\n')
        connection.close()
    wait_until(lambda: client.service.worker.taken == 0)
    assert client.read().status == 200


def test_a_client_that_goes_away_frees_its_place(serve):
    client = serve(Limits(slots=3))
    gate = Gate(client)
    running, waiting, patient = begin(client), begin(client), begin(client)
    assert gate.begun.acquire(timeout=30)
    wait_until(lambda: client.service.worker.taken == 3)
    waiting.close()  # at once
    wait_until(lambda: client.service.worker.taken == 2)
    running.close()  # when its batch ends
    gate.open.set()
    assert patient.getresponse().read().endswith(b'{"event": "done"}\n')
    patient.close()
    wait_until(lambda: client.service.worker.taken == 0)


def test_a_client_that_takes_nothing_is_dropped(serve):
    client = serve(Limits(slots=1, idle_seconds=0.3))
    line = {"event": "cells", "reading": 0, "cells": ["x" * 100_000]}
    client.service.read = lambda _plan, _adapters, _lens: iter(
        [line] * 200
    )  # more than the sockets hold
    with socket.create_connection(("127.0.0.1", client.port)) as raw:
        body = b'{"prompt": "owl", "chat": "none"}'
        head = f"POST /api/read HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        raw.sendall(head.encode() + b"Content-Type: application/json\r\n\r\n" + body)
        wait_until(lambda: client.service.worker.taken == 1)
        wait_until(lambda: client.service.worker.taken == 0)


def test_a_failure_inside_is_one_line_and_the_server_lives(serve, caplog):
    client = serve()
    original = client.service.read

    def broken(_plan, _adapters, _lens):
        yield {"event": "start"}
        raise RuntimeError("a secret path")

    client.service.read = broken
    answer = client.read()
    assert answer.events[-1]["event"] == "error"
    assert b"secret" not in answer.body
    client.service.read = original
    assert client.read(positions="0").events[-1] == {"event": "done"}


def test_half_a_character_in_an_answer_is_replaced(serve):
    client = serve()

    def half(_plan, _adapters, _lens):
        yield {"event": "start", "text": "a\ud83d"}

    client.service.read = half
    assert client.read().events == [{"event": "start", "text": "a?"}]


def test_garbage_on_the_wire_does_no_harm(serve):
    client = serve()
    for garbage in (
        b"\x16\x03\x01\x02\x00",
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 9000,
    ):
        with socket.create_connection(("127.0.0.1", client.port), 30) as raw:
            try:
                raw.sendall(garbage)
                raw.recv(100)
            except OSError:
                pass
    assert client.get("/api/info").status == 200
    assert isinstance(client.connection(), http.client.HTTPConnection)
