"""The routes: the page, what is loaded, read a prompt, label vectors."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import math
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from selfie_adapters.errors import SelfieError
from selfie_adapters.report.page import render_page
from selfie_adapters.serving.guard import Guard
from selfie_adapters.serving.requests import (
    LabelRequest,
    Limits,
    ReadRequest,
    RefusedError,
    parse_request,
    vectors_in,
    vectors_of,
)
from selfie_adapters.serving.service import Service
from selfie_adapters.serving.worker import Event, Job, NoSlotError


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
        with _slot(service) as job:
            body = await _body(request, service.limits)
            asked = parse_request(ReadRequest, body)
            adapters = service.chosen(asked.adapters)
            plan = service.plan(asked)
            job.start(lambda: service.read(plan, adapters, asked.lens))
            return _Lines(job, service.limits.idle_seconds)

    async def label(request: Request) -> Response:
        kind = _content_type(request, "application/json", "application/octet-stream")
        with _slot(service) as job:
            body = await _body(request, service.limits)
            if kind == "application/json":
                asked = parse_request(LabelRequest, body)
                vectors = vectors_in(asked.vectors)
            else:
                ask = request.query_params.get("ask", "{}")
                asked = parse_request(LabelRequest, ask.encode())
                vectors = vectors_of(body)
            adapters = service.chosen(asked.adapters)
            service.check(vectors, asked)
            job.start(lambda: service.label(vectors, asked.scales, adapters))
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
        exception_handlers={
            SelfieError: _refused,
            HTTPException: _http_error,
            ClientDisconnect: _nobody,
        },
        lifespan=lifespan,
    )
    return Guard(app, hosts, token, policy)


class _Lines(Response):
    """A job's events as JSON lines, until it ends or the client goes; then its slot is free."""

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
                line, last = _line(event)
                body = {"type": "http.response.body", "body": line, "more_body": True}
                await asyncio.wait_for(send(body), self.idle_seconds)
                if last:
                    break
            await send({"type": "http.response.body", "body": b""})
        except (ClientDisconnect, TimeoutError, OSError):
            pass
        finally:
            gone.cancel()
            self.job.release()


def _line(event: Event) -> tuple[bytes, bool]:
    """An event as a line of JSON, and whether the answer ends with it. Numbers that JSON does not
    have, NaN and infinity, make it an error."""
    try:
        line = json.dumps(event, ensure_ascii=False, allow_nan=False)
    except ValueError:
        where = next(_not_finite(event, ""), "its numbers")
        message = (
            f"The model's answer holds NaN or infinity ({where}). The vector, its scale or the "
            "adapter may be too large for the model's dtype; try float32 or a smaller scale."
        )
        return json.dumps({"event": "error", "message": message}).encode() + b"\n", True
    return line.encode("utf-8", "replace") + b"\n", False


def _not_finite(value: Any, place: str) -> Iterator[str]:
    if isinstance(value, float) and not math.isfinite(value):
        yield place.lstrip(".")
    elif isinstance(value, dict):
        for key, one in value.items():
            yield from _not_finite(one, f"{place}.{key}")
    elif isinstance(value, (list, tuple)):
        for number, one in enumerate(value):
            yield from _not_finite(one, f"{place}.{number}")


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
def _slot(service: Service) -> Iterator[Job]:
    """A slot in the queue before anything of the request is read; freed if it is refused."""
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
    if length.isdecimal() and (len(length) > 18 or int(length) > limits.body_bytes):
        raise too_long
    body = bytearray()
    try:
        async with asyncio.timeout(limits.body_seconds):
            async for part in request.stream():
                body += part
                if len(body) > limits.body_bytes:
                    raise too_long
    except TimeoutError as error:
        raise RefusedError(408, "The request came too slowly.") from error
    return bytes(body)


def _content_type(request: Request, *kinds: str) -> str:
    # A page of another origin cannot send these without a preflight request, which is refused.
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in kinds:
        raise RefusedError(415, f"Content-Type {' or '.join(kinds)} is expected.")
    return kind


async def _refused(_request: Request, error: Exception) -> Response:
    status, headers = 400, {"connection": "close"}  # the body may not have been read
    if isinstance(error, RefusedError):
        status = error.status
    elif isinstance(error, NoSlotError):
        status, headers["retry-after"] = 429, "2"
    return JSONResponse({"error": str(error)}, status, headers)


async def _nobody(_request: Request, _error: Exception) -> Response:
    return Response(status_code=400)  # the client has gone in the middle of its request


async def _http_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


def _hashes(tag: str, page: str) -> str:
    """Content-Security-Policy sources for the page's own inline scripts and styles."""
    contents = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
    digests = [hashlib.sha256(text.encode()).digest() for text in contents]
    return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
