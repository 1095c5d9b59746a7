"""The routes: the page, what is loaded, read a prompt, label vectors."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import copy
import dataclasses
import hashlib
import json
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send
from torch import Tensor

from selfie_adapters.errors import SelfieError
from selfie_adapters.labelling.confidence import Confidence
from selfie_adapters.labelling.labeller import Label, Labeller
from selfie_adapters.labelling.reading import ReadingPlan, plan_reading, read_cells, read_means
from selfie_adapters.model import FrozenModel
from selfie_adapters.report.page import render_page
from selfie_adapters.report.reading_page import measure, page_frame, shown_cell, visible
from selfie_adapters.serving.guard import Guard
from selfie_adapters.serving.requests import (
    LabelRequest,
    Limits,
    ReadRequest,
    RefusedError,
    as_vectors,
    parse_json,
    vectors_of,
)
from selfie_adapters.serving.worker import Event, Job, NoPlaceError, Worker

_CELLS_AT_ONCE = 16  # few enough that a browser sees cells come every second or so


@dataclass(frozen=True)
class ServedAdapter:
    """An adapter with the name it is shown under and its calibration, if it has one."""

    name: str
    labeller: Labeller
    confidence: Confidence | None

    @property
    def trained_layer(self) -> int | None:
        binding = self.labeller.adapter.binding
        return None if binding is None else binding.layer


class Service:
    """One model in memory, its adapters, and the worker that everything runs in."""

    def __init__(
        self,
        model: FrozenModel,
        adapters: list[ServedAdapter],
        mean: tuple[str, list[int]] | None = None,
        limits: Limits | None = None,
    ) -> None:
        """mean: file of mean vectors, and the layers that it has."""
        self.model, self.adapters, self.mean = model, adapters, mean
        self.limits = limits or Limits()
        self.worker = Worker(self.limits.places)
        # A tokenizer is not safe in two threads at once; requests are checked with a copy.
        self._front = dataclasses.replace(model, tokenizer=copy.deepcopy(model.tokenizer))

    def info(self) -> dict[str, Any]:
        return {
            "model": self.model.name,
            "n_layers": self.model.n_layers,
            "d_model": self.model.d_model,
            "layers": None if self.mean is None else self.mean[1],
            "adapters": [
                {"name": visible(a.name), "kind": a.labeller.adapter.kind, "layer": a.trained_layer}
                for a in self.adapters
            ],
            "limits": dataclasses.asdict(self.limits),
        }

    def chosen(self, numbers: list[int]) -> list[ServedAdapter]:
        if not all(0 <= number < len(self.adapters) for number in numbers):
            raise RefusedError(400, f"adapters: choose from 0 to {len(self.adapters) - 1}.")
        return [self.adapters[number] for number in numbers]

    def plan(self, wanted: ReadRequest) -> ReadingPlan:
        """Tokenise and count; raises RefusedError 413 for too much."""
        limits = self.limits
        if len(wanted.prompt) > limits.prompt_characters:
            raise RefusedError(
                413,
                f"The prompt has {len(wanted.prompt):,} characters; "
                f"{limits.prompt_characters:,} are read at most.",
            )
        layers = wanted.layers or None
        plan = plan_reading(
            self._front,
            wanted.prompt,
            self.mean[1] if layers is None and self.mean else layers,
            wanted.positions or None,
            wanted.chat,
            wanted.special,
        )
        if len(plan.tokens) > limits.prompt_tokens:
            raise RefusedError(
                413,
                f"The prompt has {len(plan.tokens):,} tokens; "
                f"{limits.prompt_tokens:,} are read at most.",
            )
        cells = plan.n_cells * len(wanted.adapters)
        if cells > limits.cells:
            raise RefusedError(
                413,
                f"{cells:,} cells are asked for; {limits.cells:,} are read at most. "
                "Choose fewer layers (such as ::4) or fewer positions.",
            )
        return plan

    def read(self, plan: ReadingPlan, adapters: list[ServedAdapter]) -> Iterator[Event]:
        """Runs in the worker."""
        means = None
        if self.mean is not None:
            means = read_means(self.mean[0], plan.layers, self.model.d_model)
        yield {
            "event": "start",
            **page_frame(plan),
            "readings": _readings(adapters),
            "total": plan.n_cells * len(adapters),
        }
        for number, adapter in enumerate(adapters):
            batches = read_cells(
                adapter.labeller, plan, means, adapter.confidence, batch_size=_CELLS_AT_ONCE
            )
            for cells in batches:
                shown = [shown_cell(cell) for cell in cells]
                yield {"event": "cells", "reading": number, "cells": shown}
        yield {"event": "done"}

    def label(
        self, vectors: Tensor, scales: list[float], adapters: list[ServedAdapter]
    ) -> Iterator[Event]:
        """Runs in the worker."""
        total = len(vectors) * len(scales) * len(adapters)
        yield {"event": "start", "readings": _readings(adapters), "total": total}
        for number, adapter in enumerate(adapters):
            for index in range(len(vectors)):
                one = vectors[index : index + 1]
                (answers,) = adapter.labeller.label(one, scales, first_index=index)
                rows = [_shown_label(index, answer, adapter.confidence) for answer in answers]
                yield {"event": "labels", "reading": number, "labels": rows}
        yield {"event": "done"}


def make_app(service: Service, hosts: frozenset[str] | None, token: str | None) -> Guard:
    """The ASGI app. hosts: accepted names in the Host header, None for any (with a token)."""
    page = render_page("serve", {})
    policy = (
        "default-src 'none'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        f"frame-ancestors 'none'; script-src {_hashes('script', page)}; "
        f"style-src {_hashes('style', page)}"
    )

    async def home(_request: Request) -> Response:
        return HTMLResponse(page)

    async def info(_request: Request) -> Response:
        return JSONResponse(service.info())

    async def read(request: Request) -> Response:
        _content_type(request, "application/json")
        with _place(service) as job:
            body = await _body(request, service.limits)
            wanted = parse_json(ReadRequest, body)
            adapters = service.chosen(wanted.adapters)
            plan = service.plan(wanted)
            job.start(lambda: service.read(plan, adapters))
            return _Lines(job, service.limits.idle_seconds)

    async def label(request: Request) -> Response:
        kind = _content_type(request, "application/json", "application/octet-stream")
        with _place(service) as job:
            body = await _body(request, service.limits)
            if kind == "application/json":
                wanted = parse_json(LabelRequest, body)
                vectors = as_vectors(wanted.vectors)
            else:
                wanted = parse_json(LabelRequest, request.query_params.get("ask", "{}").encode())
                vectors = vectors_of(body)
            adapters = service.chosen(wanted.adapters)
            _check_vectors(service, vectors, wanted)
            job.start(lambda: service.label(vectors, wanted.scales, adapters))
            return _Lines(job, service.limits.idle_seconds)

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.worker.close, wait=30.0)

    app = Starlette(
        routes=[
            Route("/", home),
            Route("/api/info", info),
            Route("/api/read", read, methods=["POST"]),
            Route("/api/label", label, methods=["POST"]),
        ],
        exception_handlers={SelfieError: _refused, HTTPException: _http_error},
        lifespan=lifespan,
    )
    return Guard(app, hosts, token, policy)


class _Lines(Response):
    """A job's events as JSON lines, until it ends or the client goes; then its place is free."""

    def __init__(self, job: Job, idle_seconds: float) -> None:
        super().__init__(media_type="application/x-ndjson")
        del self.headers["content-length"]
        self.job, self.idle_seconds = job, idle_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gone = asyncio.ensure_future(_disconnected(receive))
        try:
            start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
            await send(start)
            while (event := await _first(self.job.events.get(), gone)) is not None:
                line = json.dumps(event, ensure_ascii=False, allow_nan=False) + "\n"
                body = {"type": "http.response.body", "body": line.encode(), "more_body": True}
                await asyncio.wait_for(send(body), self.idle_seconds)
            await send({"type": "http.response.body", "body": b""})
        except (ClientDisconnect, TimeoutError, OSError):
            pass
        finally:
            gone.cancel()
            self.job.release()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _first(getting: Any, gone: asyncio.Future[None]) -> Event | None:
    """The next event; raises ClientDisconnect if the client goes first."""
    task = asyncio.ensure_future(getting)
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if gone.done():
            raise ClientDisconnect
        return task.result()
    finally:
        task.cancel()


@contextlib.contextmanager
def _place(service: Service) -> Iterator[Job]:
    """A place in the queue before anything of the request is read; given back if it is refused."""
    job = service.worker.reserve()
    try:
        yield job
    except BaseException:
        job.release()
        raise


async def _body(request: Request, limits: Limits) -> bytes:
    """The whole body. Raises RefusedError 413 if it is too long, 408 if it is too slow."""
    too_long = RefusedError(413, f"The request is longer than {limits.body_bytes:,} bytes.")
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and int(length) > limits.body_bytes:
        raise too_long
    parts: list[bytes] = []
    try:
        async with asyncio.timeout(limits.body_seconds):
            async for part in request.stream():
                parts.append(part)
                if sum(map(len, parts)) > limits.body_bytes:
                    raise too_long
    except TimeoutError as error:
        raise RefusedError(408, "The request came too slowly.") from error
    return b"".join(parts)


def _content_type(request: Request, *kinds: str) -> str:
    # A page from elsewhere cannot send these without asking first, and is then told no.
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in kinds:
        raise RefusedError(415, f"Content-Type {' or '.join(kinds)} is expected.")
    return kind


def _check_vectors(service: Service, vectors: Tensor, wanted: LabelRequest) -> None:
    d_model = service.model.d_model
    if vectors.shape[1] != d_model:
        raise RefusedError(
            400,
            f"vectors of width {vectors.shape[1]}; the model {service.model.name} has {d_model}.",
        )
    if not bool(vectors.isfinite().all()):
        raise RefusedError(400, "the vectors hold NaN or infinity.")
    labels = len(vectors) * len(wanted.scales) * len(wanted.adapters)
    if labels > service.limits.vector_labels:
        raise RefusedError(
            413,
            f"{labels:,} labels are asked for; {service.limits.vector_labels:,} are written at "
            "most. Send fewer vectors or scales.",
        )


def _readings(adapters: list[ServedAdapter]) -> list[dict[str, Any]]:
    """Colour by confidence only if every grid can: two meanings side by side would mislead."""
    calibrated = all(adapter.confidence is not None for adapter in adapters)
    return [
        {
            "name": visible(adapter.name) if len(adapters) > 1 else "",
            "measure": measure(adapter.confidence if calibrated else None),
            "trained_layer": adapter.trained_layer,
        }
        for adapter in adapters
    ]


def _shown_label(index: int, label: Label, confidence: Confidence | None) -> dict[str, Any]:
    return {
        "index": index,
        "scale": label.scale,
        "label": visible(label.text),
        "gain": label.gain,
        "confidence": None if confidence is None else confidence.of(label),
    }


async def _refused(_request: Request, error: Exception) -> Response:
    status, headers = 400, {"connection": "close"}  # the body may not have been read
    if isinstance(error, RefusedError):
        status = error.status
    elif isinstance(error, NoPlaceError):
        status, headers["retry-after"] = 429, "2"
    return JSONResponse({"error": str(error)}, status, headers)


async def _http_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


def _hashes(tag: str, page: str) -> str:
    """Content-Security-Policy sources for the page's own inline texts."""
    texts = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
    digests = [hashlib.sha256(text.encode()).digest() for text in texts]
    return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
