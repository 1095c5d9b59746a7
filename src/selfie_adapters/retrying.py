"""Servers fail for a moment: try again, waiting longer each time."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from selfie_adapters.errors import DownloadError

Result = TypeVar("Result")

ATTEMPTS = 6
FIRST_WAIT = 0.25  # seconds; doubled after each failure: about 8 s in all
LONGEST_WAIT = 8.0
LONGEST_ASKED = 120.0  # a server that asks for hours is not obeyed


class PassingFailure(Exception):
    """What may go well the next time: no answer, a server's 5xx, a cut or damaged body.

    wait: seconds after which the server asks for the next request, where it said so.
    """

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait


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
            # Jitter, so that downloads side by side do not come back all at once.
            own = wait * random.uniform(0.5, 1.5)
            time.sleep(max(own, min(failure.wait or 0.0, LONGEST_ASKED)))
            wait = min(2 * wait, LONGEST_WAIT)
    try:
        return action()
    except PassingFailure as failure:
        message = f"{what}: {failure} ({ATTEMPTS} attempts). {advice}"
        raise DownloadError(message.rstrip()) from failure
