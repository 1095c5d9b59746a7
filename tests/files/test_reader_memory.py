"""No reader of files takes more than four times a file of tiny values, whatever it makes of it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

SIZE = 24 * 2**20
SECTION = (
    '[{"metadata":{"dataset_name":"a","filename":"v.pt","layer":3,"source":"s","vector_type":"t"}'
)
READERS = {
    "training file": """
from selfie_adapters.dataset.document import read_raw_sections
def read(path):
    if found := read_raw_sections(path)[1]:
        raise SelfieError(found[0])
""",
    "label file": "from selfie_adapters.sources import read_label_file as read",
    "titles": "from selfie_adapters.sources.topics.titles import read_titles as read",
    "any": "from selfie_adapters.files import read_json as read",
}
PROBE = """
import sys, gc, torch, numpy
from selfie_adapters.errors import SelfieError
import selfie_adapters.dataset.document, selfie_adapters.sources.labels.files
{reader}
def peak():
    lines = open("/proc/self/status")
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024
gc.collect()
before = peak()
try:
    found = read(sys.argv[1])
    print("read", end=" ")
except SelfieError as error:
    print("refused", end=" ")
print(peak() - before)
"""


def repeated(start: str, one: Callable[[int], str], end: str, joint: str = ",") -> str:
    parts, size, number = [], 0, 0
    while size < SIZE:
        parts.append(one(number))
        size += len(parts[-1]) + 1
        number += 1
    return start + joint.join(parts) + end


def item(number: int) -> str:
    return f'{{"index":{number},"labels":["owl"],"split":"train"}}'


FILES: dict[str, Callable[[], str]] = {
    "items": lambda: repeated(SECTION + ',"vectors":[', item, "]}]"),
    "wrong item": lambda: repeated(SECTION + ',"vectors":[', item, ',{"index":-1}]}]'),
    "labels of one item": lambda: repeated(
        SECTION + ',"vectors":[{"index":0,"split":"val","labels":[', lambda _: '"a"', "]}]}]"
    ),
    "items that are none": lambda: repeated(SECTION + ',"vectors":[', str, "]}]"),
    "sections that are none": lambda: repeated("[", lambda _: "{}", "]"),
    "empty sections": lambda: repeated("[", lambda _: '{"metadata":0,"vectors":[]}', "]"),
    "texts": lambda: repeated("[", lambda _: '"a"', "]"),
    "numbers": lambda: repeated("[", lambda n: f"{n / 7:.4f}", "]"),
    "mapping": lambda: repeated("{", lambda n: f'"{n}":"owl"', "}"),
    "mapping of other keys": lambda: repeated("{", lambda n: f'"k{n}":1', "}"),
    "lines": lambda: repeated("", lambda n: f'{{"index":{n},"description":"owl"}}', "", "\n"),
}
SOUND = [
    ("training file", "items"),
    ("label file", "items"),
    ("label file", "mapping"),
    ("label file", "lines"),
]
CASES = [
    *SOUND,
    *(("training file", name) for name in ("wrong item", "labels of one item", "texts")),
    *(("training file", name) for name in ("items that are none", "sections that are none")),
    *(("training file", name) for name in ("empty sections", "numbers", "mapping")),
    *(("label file", name) for name in ("texts", "numbers", "empty sections")),
    ("label file", "mapping of other keys"),
    *(("titles", name) for name in ("texts", "numbers")),
    *(("any", name) for name in ("items", "texts", "mapping of other keys", "numbers")),
]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
@pytest.mark.parametrize(("reader", "name"), CASES)
def test_memory_stays_below_four_times_the_file(tmp_path, reader, name):
    file = tmp_path / "file.json"
    file.write_text(FILES[name]())
    command = [sys.executable, "-c", PROBE.format(reader=READERS[reader]), str(file)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=True)
    said, grown = done.stdout.split()
    assert said == ("read" if (reader, name) in SOUND else "refused")
    assert int(grown) <= 4 * file.stat().st_size, f"{int(grown) / file.stat().st_size:.1f} times"
