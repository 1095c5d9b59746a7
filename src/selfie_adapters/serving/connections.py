"""How long a connection may do nothing, and how many may: no client can lock out the others.

Uvicorn waits without limit for the head of a request and for a client that takes no data. Here a
connection that has no complete request is dropped after a while, and the oldest of them as soon as
there are too many; so is one that does not take its answer.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    from selfie_adapters.serving.requests import Limits


def bounded_protocol(limits: Limits) -> type[H11Protocol]:
    """The protocol class of one server, for `uvicorn.Config(http=…)`."""
    idle: dict[H11Protocol, None] = {}  # in the order in which they began to wait

    class Bounded(H11Protocol):
        timer: asyncio.TimerHandle | None = None
        stalled: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            self._wait()
            if len(idle) > limits.idle_connections:
                next(iter(idle)).transport.abort()

        def connection_lost(self, exc: Exception | None) -> None:
            self._end_wait()
            self.resume_writing()
            super().connection_lost(exc)

        def handle_events(self) -> None:
            super().handle_events()
            if self.cycle is not None and not self.cycle.response_complete:
                self._end_wait()

        def on_response_complete(self) -> None:
            self._wait()
            super().on_response_complete()

        def pause_writing(self) -> None:
            super().pause_writing()
            self.stalled = self.loop.call_later(limits.idle_seconds, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            if self.stalled is not None:
                self.stalled.cancel()

        def _wait(self) -> None:
            """No request is there: its head must be complete in time. Bytes do not prolong that."""
            self._end_wait()
            idle[self] = None
            # Not close(): that would first wait for the client to take what is left.
            self.timer = self.loop.call_later(limits.head_seconds, self.transport.abort)

        def _end_wait(self) -> None:
            idle.pop(self, None)
            if self.timer is not None:
                self.timer.cancel()
                self.timer = None

    return Bounded


def server_settings(limits: Limits) -> dict[str, Any]:
    """Keywords for `uvicorn.Config`."""
    return {
        "http": bounded_protocol(limits),
        "ws": "none",
        "backlog": 256,  # accepted at once, before the oldest are dropped
        "limit_concurrency": 1000,
        "timeout_graceful_shutdown": 10,
        "log_level": "warning",
        "access_log": False,
        "server_header": False,
        "proxy_headers": False,
    }
