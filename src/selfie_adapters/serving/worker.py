"""One thread that works for many clients, one after the other, with a bounded number of slots."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from selfie_adapters.errors import SelfieError

log = logging.getLogger(__name__)

Event = dict[str, Any]
Work = Callable[[], Iterator[Event]]
STOPPING = {"event": "error", "message": "The server is stopping. Try again later."}


class NoSlotError(SelfieError, RuntimeError):
    """Every slot is taken, or the server is stopping."""


class Job:
    """A client's slot: from before its request is read until its answer is delivered.

    `events` gets what the work yields, then None. Free the slot with `release`, always.
    """

    def __init__(self, worker: Worker) -> None:
        self.events: asyncio.Queue[Event | None] = asyncio.Queue()
        self.released = False
        self.running = False
        self._worker = worker
        self._loop = asyncio.get_running_loop()
        self.work: Work | None = None

    def start(self, work: Work) -> None:
        """Queue `work`; it runs in the worker's thread when its turn comes."""
        self.work = work
        self._worker.queue(self)

    def release(self) -> None:
        """The client has its answer, or has gone: waiting work is dropped, running work stops."""
        self._worker.release(self)

    def send(self, event: Event | None) -> None:
        """From any thread."""
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody receives it
            self._loop.call_soon_threadsafe(self.events.put_nowait, event)


class Worker:
    """Runs the jobs in order. `slots` bounds jobs that run, wait, or are being delivered."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.taken = 0
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._busy = False
        self._thread = threading.Thread(target=self._run, name="selfie-worker", daemon=True)
        self._thread.start()

    def reserve(self) -> Job:
        """A slot, from within the event loop. Raises NoSlotError."""
        with self._changed:
            if self._closed:
                raise NoSlotError(STOPPING["message"])
            if self.taken >= self.slots:
                raise NoSlotError(f"All {self.slots} slots are taken. Try again in a few seconds.")
            self.taken += 1
        return Job(self)

    def queue(self, job: Job) -> None:
        with self._changed:
            if not self._closed:
                if ahead := len(self._waiting) + self._busy:
                    job.send({"event": "waiting", "ahead": ahead})
                self._waiting.append(job)
                self._changed.notify()
                return
        self._refuse(job)

    def release(self, job: Job) -> None:
        with self._changed:
            if job.released:
                return
            job.released = True
            with contextlib.suppress(ValueError):  # the thread has taken it
                self._waiting.remove(job)
            if not job.running:  # else the thread frees the slot when it has stopped
                self.taken -= 1

    def close(self, wait: float = 0.0) -> None:
        """Take no more jobs; notify those that wait; stop the running one at its next batch."""
        with self._changed:
            self._closed = True
            left = list(self._waiting)
            self._waiting.clear()
            self._changed.notify()
        for job in left:
            self._refuse(job)
        if wait:
            self._thread.join(wait)

    @staticmethod
    def _refuse(job: Job) -> None:
        job.send(STOPPING)
        job.send(None)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._closed:
                    self._changed.wait()
                if not self._waiting:
                    return
                job = self._waiting.popleft()
                job.running = self._busy = True
            try:
                self._do(job)
            finally:
                with self._changed:
                    job.running = self._busy = False
                    if job.released:
                        self.taken -= 1
                job.send(None)  # last: a client that asks again at once has nobody ahead

    def _do(self, job: Job) -> None:
        assert job.work is not None
        try:
            with contextlib.closing(job.work()) as events:  # type: ignore[type-var]
                for event in events:
                    if job.released:
                        return
                    job.send(event)
                    if self._closed:
                        job.send(STOPPING)
                        return
        except SelfieError as error:
            job.send({"event": "error", "message": str(error)})
        except Exception:  # one request's misfortune must not end the server
            log.exception("a request failed")
            job.send({"event": "error", "message": "The server failed here; its log states why."})
