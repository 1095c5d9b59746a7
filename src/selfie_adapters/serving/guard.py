"""Which requests are served: right Host, no page of another origin, the token if there is one."""

from __future__ import annotations

import hmac
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})
ANYWHERE = frozenset({"0.0.0.0", "[::]"})


class Guard:
    """Refuses requests before the app sees them, and adds the headers that protect the page.

    A page from elsewhere can make a browser send requests here, and can point its own name at
    127.0.0.1 (DNS rebinding): so the Host must be one of `hosts` (None: any, where a token is
    asked for anyway), and an Origin, where there is one, must be this Host.
    """

    def __init__(
        self, app: ASGIApp, hosts: frozenset[str] | None, token: str | None, policy: str
    ) -> None:
        self.app, self.hosts, self.token = app, hosts, token
        self.headers = {
            "content-security-policy": policy,
            "x-content-type-options": "nosniff",
            "referrer-policy": "no-referrer",
            "cross-origin-resource-policy": "same-origin",
            "cache-control": "no-store",
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def protected(message: Message) -> None:
            if message["type"] == "http.response.start":
                extra = [(k.encode(), v.encode()) for k, v in self.headers.items()]
                message["headers"] = [*message["headers"], *extra]
            await send(message)

        if refusal := self._refusal(scope):
            await _refuse(protected, *refusal)
        else:
            await self.app(scope, receive, protected)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        given = [(name, value.decode("latin-1")) for name, value in scope["headers"]]
        hosts = [value for name, value in given if name == b"host"]
        if len(hosts) != 1 or (self.hosts is not None and _name(hosts[0]) not in self.hosts):
            return 421, "This server does not answer under that name."
        origins = [value for name, value in given if name == b"origin"]
        if any(origin.partition("://")[2] != hosts[0] for origin in origins):
            return 403, "Pages from elsewhere may not ask here."
        if self.token is not None and scope["path"].startswith("/api/"):
            expected = f"Bearer {self.token}".encode()
            found = [value for name, value in given if name == b"authorization"]
            if len(found) != 1 or not hmac.compare_digest(found[0].encode("latin-1"), expected):
                return 401, "A token is needed: open the address that the server printed."
        return None


def _name(host: str) -> str:
    """The name in a Host header, without the port."""
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdecimal() else host).casefold()


async def _refuse(send: Send, status: int, message: str) -> None:
    body = json.dumps({"error": message}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    headers.append((b"connection", b"close"))  # what is left of the request is not read
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
