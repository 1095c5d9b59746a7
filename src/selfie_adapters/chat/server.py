"""One HTTP server that answers in JSON: what is tried again, and what its refusals mean."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import httpx2

from selfie_adapters.errors import ConfigError, DownloadError
from selfie_adapters.http import PassingFailure, answered, is_address, with_retries

Result = TypeVar("Result")

_CONNECT_SECONDS = 20.0


class ChatServer:
    """Where requests go, with which headers, and how failures are reported."""

    def __init__(
        self, base_url: str, headers: Mapping[str, str], timeout: float, key_env: str | None
    ) -> None:
        """timeout: seconds for one answer; key_env: the variable that the key came from, if any.

        Raises ConfigError for an address that is none.
        """
        self.base_url = base_url.rstrip("/")
        self._headers = dict(headers)
        self._timeout = timeout
        self._key_env = key_env
        if not is_address(self.base_url):
            raise ConfigError(
                f"{base_url!r} is not the address of a server; an address such as "
                "http://localhost:8000/v1 is "
                "expected."
            )

    def opened(self) -> httpx2.Client:
        """A client for several threads; close it, or use it in a with statement."""
        wait = httpx2.Timeout(self._timeout, connect=min(self._timeout, _CONNECT_SECONDS))
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=64)
        return httpx2.Client(headers=self._headers, timeout=wait, limits=limits)

    def post(
        self,
        client: httpx2.Client,
        path: str,
        body: Mapping[str, Any],
        read: Callable[[Any], Result],
        repeatable: bool = True,
    ) -> Result:
        """What `read` makes of the JSON answer; it raises PassingFailure for one it cannot use.

        repeatable: whether asking twice does no harm; if not, a request that the server may have
        taken is not sent again. Raises DownloadError when the server refuses, or fails again and
        again.
        """
        content = json.dumps(body).encode()
        kind = {"Content-Type": "application/json"}

        def send(url: str) -> httpx2.Response:
            try:
                return client.post(url, content=content, headers=kind)
            except httpx2.TransportError as error:
                if repeatable or isinstance(error, (httpx2.ConnectError, httpx2.ConnectTimeout)):
                    raise
                raise DownloadError(
                    f"{url}: no complete answer ({error or type(error).__name__}); it is not known "
                    "whether the server accepted the request. Check there before you run it again."
                ) from error

        return self._tried(path, send, _json, read)

    def get(self, client: httpx2.Client, path: str, read: Callable[[Any], Result]) -> Result:
        """As `post`, for a GET request."""
        return self._tried(path, lambda url: client.get(url), _json, read)

    def get_text(self, client: httpx2.Client, path: str, read: Callable[[str], Result]) -> Result:
        """As `get`, where the answer is UTF-8 text and not one JSON value."""
        return self._tried(path, lambda url: client.get(url), _text, read)

    def _tried(
        self,
        path: str,
        send: Callable[[str], httpx2.Response],
        decode: Callable[[httpx2.Response], Any],
        read: Callable[[Any], Result],
    ) -> Result:
        url = path if path.startswith(("http://", "https://")) else f"{self.base_url}/{path}"

        def once() -> Result:
            return read(decode(answered(url, lambda: send(url), self._fix)))

        return with_retries(
            url, once, "Is the server up, and not too busy? What was answered is kept."
        )

    def _fix(self, status: int) -> str:
        if status in (401, 403):
            if self._key_env:
                return f"The key in {self._key_env} is not accepted here."
            return "The server requires a key: name the variable that holds it (api_key_env)."
        if status == 404:
            return (
                "The address must be the one that the protocol's paths are appended to, most "
                "often ending in /v1, and the model one that the server has."
            )
        if 300 <= status < 400:
            return "Name the address that it redirects to."
        return "The server refuses this request for the reason in its message."


def api_key(variable: str) -> str:
    """The key that the environment variable holds. Raises ConfigError if there is none."""
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ConfigError(
            f"the environment variable {variable} is not set; it should hold the server's key. "
            f"export {variable}=…, or omit api_key_env if the server requires no key."
        )
    if not (key.isascii() and key.isprintable()):
        raise ConfigError(f"the environment variable {variable} holds what a key cannot contain.")
    return key


def well_formed(text: str) -> str:
    """`text` without halves of characters, which JSON can carry and no file can."""
    return text.encode("utf-8", "replace").decode()


def _json(response: httpx2.Response) -> Any:
    try:
        return response.json()
    except (ValueError, RecursionError) as error:
        start = response.content[:80].decode("utf-8", "replace")
        raise PassingFailure(f"the answer is not JSON: {start!r}") from error


def _text(response: httpx2.Response) -> str:
    return response.content.decode("utf-8", "replace")
