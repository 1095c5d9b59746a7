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
    "topics": "from selfie_adapters.sources import read_topics as read",
    "prompts": "from selfie_adapters.files.text_lines import read_prompts as read",
    "sentences": "from selfie_adapters.sources.topics.frames import read_frames as read",
    "documents": "from selfie_adapters.evaluation.detection.windows import read_texts as read",
    "rows": """
from selfie_adapters.files.keyed_rows import KeyedRows
def read(path):
    parse = lambda row, where: (row.pop("key"), row)
    return KeyedRows(path, parse, lambda key, row: {"key": key, **row})
""",
    "given labels": """
from selfie_adapters.evaluation.retrieval.targets import _read_labels
from pathlib import Path
def read(path):
    return _read_labels(Path(path))
""",
    "run": """
from selfie_adapters.training.run_reading import read_run
from pathlib import Path
def read(path):
    folder = Path(path).parent / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text("model: {}")
    Path(path).rename(folder / "metrics.jsonl")
    try:
        return read_run(folder)
    finally:
        (folder / "metrics.jsonl").rename(path)
""",
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
    "NaN among items": lambda: repeated(
        SECTION.replace('"t"}', '"t","mean_norm":NaN}') + ',"vectors":[', item, "]}]"
    ),
    "NaN": lambda: repeated("[", lambda _: "NaN", ',"\U0001f989"]'),
    "names": lambda: repeated("", lambda _: '{"name":"owl"}', "", "\n"),
    "named and labelled": lambda: repeated(
        "", lambda n: f'{{"name":"owl {n}","labels":["a","b"],"split":"val"}}', "", "\n"
    ),
    "letters": lambda: repeated("", lambda n: "abcde"[n % 5], "", "\n"),
    "words": lambda: repeated("", lambda n: f"title of the page {n}", "", "\n"),
    "titles": lambda: repeated('{"titles":[', lambda n: f'"title of the page {n // 2}"', "]}"),
    "table": lambda: repeated("name\n", lambda _: "a", "\n", "\n"),
    "frames": lambda: repeated("", lambda _: "{}", "", "\n"),
    "owls": lambda: repeated("", lambda _: "a\U0001f989", "", "\n"),
    "texts of documents": lambda: repeated("", lambda _: '{"text":"a"}', "", "\n"),
    "measured": lambda: repeated(
        "", lambda n: f'{{"key":"adapter:{n}","losses":[{"0.5,0.25," * 20}1.5]}}', "", "\n"
    ),
    "keys": lambda: repeated("", lambda n: f'{{"key":"{n}"}}', "", "\n"),
    "indexed": lambda: repeated("", lambda n: f'{{"index":{n},"label":""}}', "", "\n"),
    "steps": lambda: repeated("", lambda n: f'{{"event":"step","step":{n},"loss":1}}', "", "\n"),
}
NAMES = {
    **dict.fromkeys(("letters", "words", "frames", "owls"), "file.txt"),
    **dict.fromkeys(("names", "named and labelled", "texts of documents", "indexed"), "file.jsonl"),
    "table": "file.csv",
}
SOUND = [
    ("training file", "items"),
    ("label file", "items"),
    ("label file", "mapping"),
    ("label file", "lines"),
    ("training file", "NaN among items"),
    ("topics", "names"),
    ("topics", "named and labelled"),
    ("titles", "words"),
    ("titles", "titles"),
    ("rows", "measured"),
]
CASES = [
    *SOUND,
    *(("training file", name) for name in ("wrong item", "labels of one item", "texts")),
    *(("training file", name) for name in ("items that are none", "sections that are none")),
    *(("training file", name) for name in ("empty sections", "numbers", "mapping")),
    *(("label file", name) for name in ("texts", "numbers", "empty sections")),
    ("label file", "mapping of other keys"),
    *(("titles", name) for name in ("texts", "numbers", "letters")),
    ("topics", "table"),
    *(("prompts", name) for name in ("letters", "owls")),
    ("sentences", "frames"),
    *(("documents", name) for name in ("letters", "texts of documents")),
    ("rows", "keys"),
    ("given labels", "indexed"),
    ("run", "steps"),
    *(("any", name) for name in ("items", "texts", "mapping of other keys", "numbers", "NaN")),
]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
@pytest.mark.parametrize(("reader", "name"), CASES)
def test_memory_stays_below_four_times_the_file(tmp_path, reader, name):
    file = tmp_path / NAMES.get(name, "file.json")
    file.write_text(FILES[name]())
    command = [sys.executable, "-c", PROBE.format(reader=READERS[reader]), str(file)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=True)
    said, grown = done.stdout.split()
    assert said == ("read" if (reader, name) in SOUND else "refused")
    assert int(grown) <= 4 * file.stat().st_size, f"{int(grown) / file.stat().st_size:.1f} times"
