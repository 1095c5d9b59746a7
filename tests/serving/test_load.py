"""Hundreds of clients at once: every one gets its whole answer or a clear refusal."""

from __future__ import annotations

import gc
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from selfie_adapters.serving.requests import Limits
from serving.conftest import wait_until

CLIENTS = 300


def resident() -> int:
    """Bytes of this process in memory (server and clients are both in it)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS")


@pytest.mark.slow
def test_hundreds_at_once_get_the_right_answer_or_a_clear_refusal(serve):
    client = serve(Limits(slots=20))
    prompts = [f"owl {i % 10}" for i in range(CLIENTS)]
    expected = {prompt: client.read(prompt, layers="1").cells for prompt in set(prompts)}
    gc.collect()
    before, most, over = resident(), [0], threading.Event()

    def watch():
        while not over.wait(0.05):
            most[0] = max(most[0], resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = threading.Barrier(CLIENTS)

    def one(i):
        start.wait(60)
        if i % 10 == 9:
            return i, client.read("x" * 30_000)
        return i, client.read(prompts[i], layers="1")

    with ThreadPoolExecutor(CLIENTS) as pool:
        answers = list(pool.map(one, range(CLIENTS)))
    over.set()
    watcher.join()
    counts = Counter(answer.status for _, answer in answers)
    assert set(counts) <= {200, 413, 429}
    assert counts[200] >= 20
    assert counts[429] > 0
    for i, answer in answers:
        if answer.status == 200:  # no answer lost, cut or given to another
            assert answer.events[-1] == {"event": "done"}
            assert answer.cells == expected[prompts[i]]
        else:
            assert answer.json["error"]
    wait_until(lambda: client.service.worker.taken == 0)
    # 300 threads of clients are in this figure, too
    assert most[0] - before < 150e6
    assert client.read("owl 0", layers="1").cells == expected["owl 0"]


@pytest.mark.slow
def test_those_who_come_back_all_get_their_answer(serve):
    client = serve(Limits(slots=8))

    def one(i):
        for _ in range(2000):
            answer = client.read(f"owl {i}", layers="0", positions="0")
            if answer.status == 200:
                return answer.events[-1]
            assert answer.status == 429
            threading.Event().wait(0.05)
        raise AssertionError("never served")

    with ThreadPoolExecutor(100) as pool:
        ends = list(pool.map(one, range(200)))
    assert ends == [{"event": "done"}] * 200
