from __future__ import annotations

import asyncio
import threading
import time

import pytest

from selfie_adapters.errors import DataError
from selfie_adapters.serving.worker import STOPPING, Job, NoSlotError, Worker

SECONDS = 10


async def events_of(job):
    found = []
    while (event := await asyncio.wait_for(job.events.get(), SECONDS)) is not None:
        found.append(event)
    return found


async def until(true):
    for _ in range(SECONDS * 100):
        if true():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("waited in vain")


def counting(n):
    def work():
        yield from ({"n": i} for i in range(n))

    return work


class Gate:
    """Work that yields once and then waits to be let on."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.begun = threading.Event()
        self.closed = threading.Event()

    def work(self):
        self.begun.set()
        try:
            for n in range(1000):
                yield {"n": n}
                assert self.open.wait(SECONDS)
        finally:
            self.closed.set()


def test_who_asks_again_after_the_last_event_has_nobody_ahead(monkeypatch):
    send = Job.send

    def slowly(self, event):
        send(self, event)
        if event is None:
            time.sleep(0.2)  # a busy machine: the thread continues late after the last event

    monkeypatch.setattr(Job, "send", slowly)

    async def main():
        worker = Worker(2)
        for _ in range(2):
            job = worker.reserve()
            job.start(counting(1))
            assert await events_of(job) == [{"n": 0}]
            job.release()
        worker.close()

    asyncio.run(main())


def test_jobs_run_one_after_the_other_in_order():
    order, at_once = [], []

    def work(name):
        def run():
            at_once.append(name)
            assert len(at_once) == 1
            order.append(name)
            yield {"name": name}
            at_once.remove(name)

        return run

    async def main():
        worker = Worker(5)
        jobs = [worker.reserve() for _ in range(5)]
        for i, job in enumerate(jobs):
            job.start(work(i))
        for i, job in enumerate(jobs):
            events = [e for e in await events_of(job) if "event" not in e]
            assert events == [{"name": i}]
            job.release()
        await until(lambda: worker.taken == 0)
        worker.close()

    asyncio.run(main())
    assert order == list(range(5))


def test_places_are_bounded_and_come_back():
    async def main():
        worker = Worker(2)
        first, second = worker.reserve(), worker.reserve()
        with pytest.raises(NoSlotError, match="All 2 slots are taken"):
            worker.reserve()
        second.release()
        second.release()  # a second time changes nothing
        assert worker.taken == 1
        third = worker.reserve()
        third.start(counting(3))
        assert [e for e in await events_of(third) if "n" in e] == [{"n": 0}, {"n": 1}, {"n": 2}]
        assert worker.taken == 2  # answered, but not delivered
        third.release()
        first.release()
        await until(lambda: worker.taken == 0)
        worker.close()

    asyncio.run(main())


def test_a_client_that_goes_while_waiting_is_never_worked_for():
    async def main():
        worker, gate, ran = Worker(3), Gate(), []
        first, second = worker.reserve(), worker.reserve()
        first.start(gate.work)
        await asyncio.to_thread(gate.begun.wait, SECONDS)
        second.start(lambda: ran.append(1) or iter(()))
        second.release()
        assert worker.taken == 1
        gate.open.set()
        first.release()
        await until(lambda: worker.taken == 0)
        worker.close(SECONDS)
        assert ran == []

    asyncio.run(main())


def test_a_client_that_goes_while_served_stops_the_work():
    async def main():
        worker, gate = Worker(1), Gate()
        job = worker.reserve()
        job.start(gate.work)
        await asyncio.to_thread(gate.begun.wait, SECONDS)
        job.release()
        assert worker.taken == 1  # the batch that runs still holds the place
        gate.open.set()
        await until(lambda: worker.taken == 0)
        assert gate.closed.is_set()
        assert job.events.qsize() < 1000
        worker.close()

    asyncio.run(main())


def test_an_error_ends_its_job_and_no_other(caplog):
    def fails(error):
        def work():
            yield {"n": 0}
            raise error

        return work

    async def main():
        worker = Worker(3)
        jobs = [worker.reserve() for _ in range(3)]
        jobs[0].start(fails(DataError("the vector is bad")))
        jobs[1].start(fails(RuntimeError("secret detail")))
        jobs[2].start(counting(1))
        ends = [(await events_of(job))[-1] for job in jobs]
        assert ends[0] == {"event": "error", "message": "the vector is bad"}
        assert ends[1]["event"] == "error"
        assert "secret" not in ends[1]["message"]
        assert ends[2] == {"n": 0}
        worker.close()

    asyncio.run(main())
    assert "secret detail" in caplog.text


def test_closing_tells_those_who_wait_and_stops_the_one_that_runs():
    async def main():
        worker, gate = Worker(3), Gate()
        first, second, third = (worker.reserve() for _ in range(3))
        first.start(gate.work)
        await asyncio.to_thread(gate.begun.wait, SECONDS)
        second.start(counting(5))
        worker.close()
        third.start(counting(5))  # its request was still being read
        gate.open.set()
        assert (await events_of(first))[-1] == STOPPING
        assert (await events_of(second))[-1] == STOPPING
        assert await events_of(third) == [STOPPING]
        with pytest.raises(NoSlotError, match="stopping"):
            worker.reserve()
        worker.close(SECONDS)
        assert not worker._thread.is_alive()

    asyncio.run(main())


def test_those_who_wait_learn_how_many_are_ahead():
    async def main():
        worker, gate = Worker(3), Gate()
        jobs = [worker.reserve() for _ in range(3)]
        jobs[0].start(gate.work)
        await asyncio.to_thread(gate.begun.wait, SECONDS)
        jobs[1].start(counting(0))
        jobs[2].start(counting(0))
        assert await jobs[1].events.get() == {"event": "waiting", "ahead": 1}
        assert await jobs[2].events.get() == {"event": "waiting", "ahead": 2}
        jobs[0].release()
        gate.open.set()
        worker.close(SECONDS)

    asyncio.run(main())
