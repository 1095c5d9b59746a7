"""`selfie prepare labels` and `selfie data fetch` as whole processes; servers on loopback."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path

import pytest

from export_bucket import BUCKET, FLASH, SOURCE_ID, export, packed, proxied, row
from selfie_adapters.sources import read_label_file

BATCH = f"v1/{SOURCE_ID}/explanations/batch-{{}}.jsonl.gz"


def process(*arguments: object, cache: Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "selfie_adapters", *map(str, arguments)],
        env={**os.environ, "SELFIE_CACHE": str(cache), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def labels_command(url: str, out: Path, *more: str) -> tuple[object, ...]:
    return ("prepare", "labels", SOURCE_ID, "--out", out, "--labels-url", url, *more)


def finished(*arguments: object, cache: Path, **environment: str) -> tuple[int, str, str]:
    running = process(*arguments, cache=cache, **environment)
    shown, errors = running.communicate(timeout=120)
    return running.returncode, shown, errors


def one_red_line(errors: str, *parts: str) -> bool:
    return "Traceback" not in errors and all(part in errors for part in ("error: ", *parts))


def test_labels_with_their_explainers_and_the_rule(export_server, tmp_path):
    export_server.fill(export(3) | {BATCH.format(3): packed([row(0, "nought", FLASH)])})
    out = tmp_path / "labels.jsonl"
    code, shown, errors = finished(*labels_command(export_server.url, out), cache=tmp_path / "c")
    assert (code, errors) == (0, "")
    assert shown.splitlines() == [
        "explanations: 4 batches",
        "7 rows, 7 labels",
        "gpt-4o-mini/oai_token-act-pair: 6 labels of 6 latents, kept",
        "gemini-2.0-flash/np_max-act-logits: 1 labels of 1 latents, dropped; "
        "see --explainer and --all-explainers",
        "rule: the explainer that labels the most latents",
        f"6 labels of 6 latents: {out}",
    ]
    first = out.read_text().splitlines()[0]
    assert first == (
        '{"index":0,"description":"label 0","explanationModelName":"gpt-4o-mini",'
        '"typeName":"oai_token-act-pair"}'
    )
    again = read_label_file(out)
    assert again.labels == {latent: [f"label {latent}"] for latent in range(6)}

    every = tmp_path / "all.jsonl.gz"
    command = labels_command(export_server.url, every, "--all-explainers")
    assert finished(*command, cache=tmp_path / "c")[0] == 0
    assert read_label_file(every).labels[0] == ["label 0", "nought"]

    other = tmp_path / "other.jsonl"
    command = labels_command(export_server.url, other, "--explainer", "gemini-2-flash")
    code, _, errors = finished(*command, cache=tmp_path / "c")
    assert code == 1
    assert one_red_line(errors, "gemini-2-flash", 'Did you mean "gemini-2.0-flash"?')


def test_torch_is_not_loaded(export_server, tmp_path):
    export_server.fill(export(1))
    command = [str(part) for part in labels_command(export_server.url, tmp_path / "l.jsonl")]
    code = f"import sys\nfrom selfie_adapters.cli import main\ntry: main({command!r})\n"
    code += "except SystemExit as stop: print('code', stop.code)\n"
    code += "print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "SELFIE_CACHE": str(tmp_path / "c")},
    )
    assert done.stdout.splitlines()[-1] == "False"
    assert (tmp_path / "l.jsonl").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("batches", [60, 1300])
def test_ten_kills_at_any_moment_and_the_same_bytes(export_server, tmp_path, batches):
    export_server.fill(export(batches))
    with proxied(export_server) as proxy:
        proxy.latency = 0.02
        whole = tmp_path / "whole.jsonl"
        started = time.monotonic()
        assert finished(*labels_command(proxy.url, whole), cache=tmp_path / "w")[0] == 0
        took = time.monotonic() - started
        expected = whole.read_bytes()
        assert expected.count(b"\n") == 2 * batches

        draw = random.Random(batches)
        out, cache = tmp_path / "out.jsonl", tmp_path / "c"
        proxy.seen.clear()
        killed = 0
        for _ in range(10):
            running = process(*labels_command(proxy.url, out, "--overwrite"), cache=cache)
            time.sleep(draw.uniform(0.2, 0.9 * took))
            killed += running.poll() is None
            running.send_signal(signal.SIGKILL)
            running.communicate()
            assert not out.exists() or out.read_bytes() == expected
        assert finished(*labels_command(proxy.url, out, "--overwrite"), cache=cache)[0] == 0
        assert out.read_bytes() == expected
        assert killed >= 3
        # What was whole before a kill was not fetched again: two dozen are under way at a time.
        asked = sum("/batch-" in path for path in proxy.seen)
        assert asked <= batches + 10 * 24
    assert not list(tmp_path.glob(".out*"))


def test_the_listing_and_every_batch_go_wrong_once(export_server, tmp_path):
    export_server.fill(export(40))
    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    assert finished(*labels_command(export_server.url, whole), cache=tmp_path / "w")[0] == 0
    faults = [
        lambda status, headers, body: (503, {}, b""),
        lambda status, headers, body: (status, headers, body[: len(body) // 2]),  # half a page
        lambda status, headers, body: (
            status,
            headers | {"Content-Length": str(len(body))},
            body[:10],
        ),
        lambda status, headers, body: (status, headers, body + b"x"),
        lambda status, headers, body: (status, headers, b"\x1f\x8b" + bytes(len(body) - 2)),
    ]
    with proxied(export_server) as proxy:

        def spoil(path, number, answer):
            listing = "list-type" in path
            fault = faults[zlib.crc32(path.encode()) % (3 if listing else len(faults))]
            return fault(*answer) if number == 1 else answer

        proxy.spoil = spoil
        code, _, errors = finished(*labels_command(proxy.url, out), cache=tmp_path / "c")
    assert (code, errors) == (0, "")
    assert out.read_bytes() == whole.read_bytes()
    assert sum("/batch-" in path for path in proxy.seen) == 80


@pytest.mark.slow  # the waits between attempts
def test_a_batch_damaged_in_the_bucket_is_one_red_line_and_no_file(export_server, tmp_path):
    files = export(3)
    files[BATCH.format(1)] = files[BATCH.format(1)][:-8] + bytes(8)  # gzip's checksum
    export_server.fill(files)
    out = tmp_path / "labels.jsonl"
    code, _, errors = finished(*labels_command(export_server.url, out), cache=tmp_path / "c")
    assert code == 1
    assert one_red_line(errors, "batch-1.jsonl.gz", "gzip data ends early or is damaged")
    assert not out.exists()


@pytest.fixture
def small_disk(tmp_path):
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small disk is not permitted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_is_said_and_leaves_no_partial_file(export_server, tmp_path, small_disk):
    export_server.fill(export(40, a_batch=200))
    out = small_disk / "labels.jsonl"
    code, _, errors = finished(*labels_command(export_server.url, out), cache=tmp_path / "c")
    assert code == 1
    assert one_red_line(errors, "labels.jsonl cannot be written", "No space left")
    assert list(small_disk.iterdir()) == []

    elsewhere = tmp_path / "labels.jsonl"
    code, _, errors = finished(
        *labels_command(export_server.url, elsewhere), cache=small_disk / "c"
    )
    assert code == 1
    assert one_red_line(errors, "cannot be written", "No space left")
    assert not elsewhere.exists()
    # with room again, the same cache is gone on with
    shutil.copytree(small_disk / "c", tmp_path / "roomy")
    code, _, errors = finished(
        *labels_command(export_server.url, elsewhere), cache=tmp_path / "roomy"
    )
    assert (code, errors) == (0, "")
    assert len(read_label_file(elsewhere)) == 8000


@pytest.mark.slow  # the waits between attempts
def test_no_network_is_one_red_line(tmp_path):
    command = labels_command(f"http://127.0.0.1:9/{BUCKET}", tmp_path / "labels.jsonl")
    code, shown, errors = finished(*command, cache=tmp_path / "c")
    assert (code, shown) == (1, "")
    assert one_red_line(errors, "cannot be listed", "Nothing of", "--labels-url FOLDER")
    assert not (tmp_path / "labels.jsonl").exists()


@pytest.mark.slow  # the waits between attempts
def test_published_files_that_cannot_be_fetched_are_one_red_line(tmp_path):
    address = "http://127.0.0.1:9"
    command = ("data", "fetch", "vital-articles", "--out", tmp_path)
    code, _, errors = finished(*command, cache=tmp_path, SELFIE_DATA_URL=address)
    assert code == 1
    assert one_red_line(errors, f"{address}/data_prep/wikipedia_topics/vital_articles", "refused")
    code, _, errors = finished("data", "fetch", "vital", cache=tmp_path)
    assert code == 1
    assert one_red_line(errors, "vital-articles")


def test_an_existing_file_is_not_replaced_unless_asked(export_server, tmp_path):
    export_server.fill(export(1))
    out = tmp_path / "labels.jsonl"
    out.write_text("mine")
    code, _, errors = finished(*labels_command(export_server.url, out), cache=tmp_path / "c")
    assert code == 1
    assert one_red_line(errors, "labels.jsonl exists", "--overwrite")
    assert out.read_text() == "mine"
    command = labels_command(export_server.url, out, "--overwrite")
    assert finished(*command, cache=tmp_path / "c")[0] == 0
    assert read_label_file(out).labels
