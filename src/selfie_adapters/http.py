"""HTTP requests: what is tried again after a failure, and what a refusal means."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, TypeVar

from selfie_adapters.errors import DownloadError

if TYPE_CHECKING:
    import httpx2

Result = TypeVar("Result")

ATTEMPTS = 6
FIRST_WAIT = 0.25  # seconds; doubled after each failure: about 8 s in all
LONGEST_WAIT = 8.0
LONGEST_ASKED = 120.0  # a server that asks for hours is not obeyed

_PASSING = {408, 409, 425, 429}  # and every 5xx


class PassingFailure(Exception):
    """What may go well the next time: no answer, a server's 5xx, a cut or damaged body.

    wait: seconds after which the server asks for the next request, where it states them.
    """

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait


def is_address(url: str) -> bool:
    """Whether `url` is an http or https address with a host."""
    import httpx2

    try:
        address = httpx2.URL(url)
    except (httpx2.InvalidURL, ValueError):
        return False
    return address.scheme in ("http", "https") and bool(address.host)


def may_pass(status: int) -> bool:
    """Whether a request that was answered with this HTTP status may succeed the next time."""
    return status in _PASSING or status >= 500


def with_retries(what: str, action: Callable[[], Result], advice: str = "") -> Result:
    """The result of `action`, tried up to ATTEMPTS times while it raises PassingFailure.

    what: how the message names the thing; advice: what it ends with. A wait that the server asked
    for is kept, up to LONGEST_ASKED. Raises DownloadError after the last attempt.
    """
    wait = FIRST_WAIT
    for _ in range(ATTEMPTS - 1):
        try:
            return action()
        except PassingFailure as failure:
            # Jitter, so that parallel downloads do not come back all at once.
            own = wait * random.uniform(0.5, 1.5)
            time.sleep(max(own, min(failure.wait or 0.0, LONGEST_ASKED)))
            wait = min(2 * wait, LONGEST_WAIT)
    try:
        return action()
    except PassingFailure as failure:
        message = f"{what}: {failure} ({ATTEMPTS} attempts). {advice}"
        raise DownloadError(message.rstrip()) from failure


def answered(
    url: str, send: Callable[[], httpx2.Response], fix: Callable[[int], str]
) -> httpx2.Response:
    """The response of one request, if it is a success.

    fix: what to do about a refusal with that status. Raises PassingFailure for no complete answer
    and for statuses that may pass, DownloadError for other statuses.
    """
    import httpx2

    try:
        response = send()
    except httpx2.TransportError as error:
        reason = str(error) or type(error).__name__
        raise PassingFailure(f"no complete answer ({reason})") from error
    if response.is_success:
        return response
    found = f"status {response.status_code}, {_reason(response)}"
    if may_pass(response.status_code):
        raise PassingFailure(found, _requested_wait(response))
    raise DownloadError(f"{url}: {found}. {fix(response.status_code)}")


def fetch(url: str, timeout: float, advice: str) -> bytes:
    """The content at an address (`is_address`); redirects are followed.

    timeout: seconds without an answer or a further piece of it. advice: what to do where it is
    refused. Raises DownloadError.
    """
    import httpx2

    with httpx2.Client(timeout=timeout, follow_redirects=True) as client:
        return with_retries(
            url, lambda: answered(url, lambda: client.get(url), lambda _: advice).content
        )


def _reason(response: httpx2.Response) -> str:
    """The server's own words, on one line."""
    try:
        body = response.json()
    except (ValueError, RecursionError):
        body = response.content[:300].decode("utf-8", "replace")
    words = body
    if isinstance(body, dict):
        words = body.get("error", body.get("detail", body.get("message", body)))
        words = words.get("message", words) if isinstance(words, dict) else words
    return " ".join(str(words).split())[:300] or "without a message"


def _requested_wait(response: httpx2.Response) -> float | None:
    """Seconds in Retry-After, which may be a number or a date."""
    value = response.headers.get("Retry-After")
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return seconds if seconds > 0 else None  # nor is a NaN above 0
