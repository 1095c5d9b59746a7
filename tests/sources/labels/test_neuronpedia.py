from __future__ import annotations

import gzip
import os
import re
import shutil
import time

import pytest

from export_bucket import (
    BUCKET,
    FLASH,
    MINI,
    MODEL,
    SAE,
    SOURCE,
    SOURCE_ID,
    export,
    packed,
    row,
    source_record,
)
from selfie_adapters.errors import DataError, DownloadError, MissingFileError, StorageError
from selfie_adapters.sources import fetch_source_labels
from selfie_adapters.sources.labels import bucket as bucket_module
from selfie_adapters.sources.labels.bucket import open_bucket
from selfie_adapters.sources.labels.neuronpedia import _read_saved

HOME = f"v1/{SOURCE_ID}"
FOUR = {latent: [f"label {latent}"] for latent in range(8)}


def batch(number, folder="explanations"):
    return f"{HOME}/{folder}/batch-{number}.jsonl.gz"


def fetch(proxy, source_id=SOURCE_ID, **options):
    return fetch_source_labels(source_id, labels_url=proxy.url, **options)


def fetched(proxy, part="/batch-"):
    """Requests for batches (or `part`) that the server has seen, listings excluded."""
    return [path for path in proxy.seen if part in path and "list-type" not in path]


def write_copy(folder, files):
    for key, content in files.items():
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / key).write_bytes(content)


# What is there


@pytest.mark.slow
def test_a_source_of_1300_batches_comes_whole(export_server, proxy):
    export_server.fill(export(1300))
    labels = fetch(proxy)
    assert labels.labels == {latent: [f"label {latent}"] for latent in range(2600)}
    assert len(set(fetched(proxy))) == 1300
    pages = [path for path in proxy.seen if "/explanations" in path.replace("%2F", "/")]
    assert sum("continuation-token" in path for path in pages) == 1


def test_more_than_a_page_of_keys_is_listed_and_batches_come_in_order(export_server, proxy):
    export_server.fill(export(1001, a_batch=1))
    files = open_bucket(proxy.url).files(f"{HOME}/explanations")
    assert {file.path for file in files} == {batch(number) for number in range(1001)}
    assert sum("continuation-token" in path for path in proxy.seen) == 1


def test_every_label_has_its_explainer_and_type(export_server, proxy):
    files = export(4) | {batch(4): packed([row(8, "label 8", FLASH), row(0, "nought", FLASH)])}
    export_server.fill(files)
    steps = []
    labels = fetch(proxy, progress=lambda *counts: steps.append(counts))
    assert labels.labels == FOUR
    assert labels.explainers == {latent: [MINI] for latent in range(8)}
    assert steps == [(done, 5) for done in range(1, 6)]
    assert labels.origin == {
        "labels_from": "Neuronpedia",
        "neuronpedia_id": SOURCE_ID,
        "labels_url": proxy.url,
        "label_rule": "the explainer that labels the most latents",
        "label_explainers": [{"explanationModelName": MINI[0], "typeName": MINI[1], "labels": 8}],
        "hook_name": "blocks.19.hook_resid_post",
    }
    assert "explanations: 5 batches" in labels.report
    every = fetch(proxy, all_explainers=True)
    assert every.labels[0] == ["label 0", "nought"]
    assert fetch(proxy, explainer=FLASH[0]).labels == {0: ["nought"], 8: ["label 8"]}


def test_one_explainer_and_all_of_them_exclude_each_other(proxy):
    with pytest.raises(DataError, match="one explainer and all"):
        fetch(proxy, explainer="x", all_explainers=True)


def test_sibling_folders_are_read_too(export_server, proxy):
    sibling = "explanations-gemini-2.0-flash"
    files = export(1) | {
        batch(0, sibling): packed([row(0, "nought", FLASH), row(5, "five", FLASH)]),
        f"{HOME}/explanations_old/batch-0.jsonl.gz": packed([row(9, "old")]),
        f"{HOME}/features/batch-0.jsonl.gz": b"not read",
        f"{HOME}/explanations/config.json": b"{}",
    }
    export_server.fill(files)
    labels = fetch(proxy, all_explainers=True)
    assert labels.labels == {0: ["label 0", "nought"], 1: ["label 1"], 5: ["five"]}
    assert labels.report[:3] == [
        "explanations: 1 batches",
        f"{sibling}: 1 batches",
        "files passed over: config.json",
    ]


def test_a_batch_that_is_missing_in_the_middle_is_reported(export_server, proxy):
    files = export(4)
    del files[batch(2)]
    export_server.fill(files)
    report = fetch(proxy).report
    assert "explanations: 1 batches missing between the others: 2" in report


# Which SAE it is of


@pytest.mark.parametrize(
    ("record", "line"),
    [
        (source_record(), f"source.jsonl names the same SAE: {SAE[0]} {SAE[1]}"),
        (source_record(None, None), f"source.jsonl does not name the SAE of {SOURCE_ID}"),
        (None, f"source.jsonl does not name the SAE of {SOURCE_ID}"),
    ],
)
def test_the_sae_is_checked_where_the_source_names_it(export_server, proxy, record, line):
    files = export(1)
    del files[f"{HOME}/source.jsonl"]
    export_server.fill(files | ({f"{HOME}/source.jsonl": record} if record else {}))
    assert any(one.startswith(line) for one in fetch(proxy, expected_sae=SAE).report)


def test_a_source_of_another_sae_stops_before_any_batch_is_fetched(export_server, proxy):
    export_server.fill(export(2))
    with pytest.raises(DataError, match=r"l19r_8x, according to its source.jsonl; .*l18r_8x"):
        fetch(proxy, expected_sae=(SAE[0], "l18r_8x"))
    assert not fetched(proxy)


def test_a_source_record_that_is_no_json_is_named(export_server, proxy):
    export_server.fill(export(1) | {f"{HOME}/source.jsonl": b"<html>"})
    with pytest.raises(DataError, match=r"source.jsonl: not as expected"):
        fetch(proxy)


# What is not there


@pytest.mark.parametrize(
    ("source_id", "message"),
    [
        (f"{MODEL}/19-llamascope-res-23k", f'no source 19-.*23k. Did you mean "{SOURCE}"'),
        (f"{MODEL}-it/{SOURCE}", f'no model llama3.1-8b-it. Did you mean "{MODEL}"'),
        ("gpt2-small-res_scefr-ajt", "Expected model/source"),
        ("a/b/c", "Expected model/source"),
        ("../x", "Expected model/source"),
        ("/x", "Expected model/source"),
        ("a b/c", "Expected model/source"),
    ],
)
def test_an_unknown_source_gets_the_nearest(export_server, proxy, source_id, message):
    export_server.fill(export(1))
    with pytest.raises(DataError, match=message):
        fetch(proxy, source_id)


def test_a_source_without_explanations(export_server, proxy):
    export_server.fill({f"{HOME}/features/batch-0.jsonl.gz": b"x"})
    with pytest.raises(DataError, match=r"has no explanations \(it holds features\)"):
        fetch(proxy)


def test_no_usable_label_is_an_error_with_the_counts(export_server, proxy):
    export_server.fill({batch(0): packed([row(0, ""), row(1, "unclear")])})
    with pytest.raises(DataError, match="no usable labels .*1 empty descriptions.*1 failed"):
        fetch(proxy)


def test_a_bad_row_is_named_by_batch_and_line(export_server, proxy):
    rows = [row(0, "a"), {**row(1, "b"), "index": 1.5}]
    export_server.fill({batch(0): packed(rows)})
    with pytest.raises(DataError, match=r"batch-0.jsonl.gz, line 2: Expected `int \| str`"):
        fetch(proxy)


def test_an_empty_bucket_says_what_layout_is_needed(export_server, proxy):
    export_server.fill({"readme.txt": b"x"})
    with pytest.raises(DataError, match="holds no v1/"):
        fetch(proxy)


def test_a_bucket_that_is_not_there_is_refused_at_once(export_server, proxy):
    export_server.fill(export(1))
    url = proxy.url.replace(BUCKET, "nothing-here")
    with pytest.raises(DownloadError, match=r"is refused \(HTTP 404 Not Found\)"):
        fetch_source_labels(SOURCE_ID, labels_url=url)
    assert len(proxy.seen) == 1


# What goes wrong on the way


def once(change):
    """Spoil the first answer to each request for a batch."""

    def spoil(path, number, answer):
        return change(*answer) if "/batch-" in path and number == 1 else answer

    return spoil


def always(change):
    return lambda path, number, answer: change(*answer) if batch(2) in path else answer


CHANGES = {
    "503": (
        lambda status, headers, body: (503, {}, b"<Code>SlowDown</Code>"),
        r"HTTP 503 Service Unavailable \(",
    ),
    "500": (lambda status, headers, body: (500, {}, b""), "500"),
    "429": (lambda status, headers, body: (429, {}, b""), "429"),
    "cut body": (
        lambda status, headers, body: (
            status,
            headers | {"Content-Length": str(len(body))},
            body[: len(body) // 2],
        ),
        "HTTP error",
    ),
    "short": (lambda status, headers, body: (status, headers, body[:-5]), "bytes came"),
    "long": (lambda status, headers, body: (status, headers, body + b"x"), "bytes came"),
    "other content": (
        lambda status, headers, body: (status, headers, body[:-1] + b"\1"),
        "does not fit its ETag",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_one_failure_of_each_batch_is_got_over(export_server, proxy, name):
    export_server.fill(export(4))
    proxy.spoil = once(CHANGES[name][0])
    assert fetch(proxy).labels == FOUR
    assert len(fetched(proxy)) == 8


@pytest.mark.parametrize("name", CHANGES)
def test_a_failure_that_stays_is_named_and_the_rest_is_kept(export_server, proxy, name):
    export_server.fill(export(4))
    change, message = CHANGES[name]
    proxy.spoil = always(change)
    with pytest.raises(DownloadError, match=rf"batch-2.jsonl.gz: .*{message}.*6 attempts.*Run"):
        fetch(proxy)
    assert sum("batch-2" in path for path in fetched(proxy)) == 6
    proxy.seen.clear()
    proxy.spoil = lambda path, number, answer: answer
    assert fetch(proxy).labels == FOUR
    assert [path.rsplit("/", 1)[-1] for path in fetched(proxy)] == ["batch-2.jsonl.gz"]


def test_gzip_that_is_damaged_in_the_bucket_is_named(export_server, proxy):
    files = export(2)
    whole = files[batch(1)]
    files[batch(1)] = whole[:-8] + bytes(8)  # its checksum; length and ETag are those listed
    export_server.fill(files)
    with pytest.raises(DownloadError, match=r"batch-1.jsonl.gz: the gzip data ends early"):
        fetch(proxy)


def test_a_page_that_is_no_gzip_is_named(export_server, proxy):
    export_server.fill(export(1) | {batch(0): b"<html>sign in</html>"})
    with pytest.raises(DownloadError, match=r"batch-0.jsonl.gz: the content is not gzip"):
        fetch(proxy)


def test_batches_that_are_not_compressed_are_read(export_server, proxy):
    files = export(2)
    files[batch(1).removesuffix(".gz")] = gzip.decompress(files.pop(batch(1)))
    export_server.fill(files)
    assert len(fetch(proxy)) == 4


def test_a_server_that_falls_silent_is_asked_again(export_server, proxy, monkeypatch):
    monkeypatch.setattr(bucket_module, "_SILENCE_TIMEOUT", "200ms")
    export_server.fill(export(1))

    def silent(path, number, answer):
        if "/batch-" in path and number == 1:
            time.sleep(0.6)
        return answer

    proxy.spoil = silent
    assert len(fetch(proxy)) == 2
    assert len(fetched(proxy)) == 2


def half(status, headers, body):
    return status, headers, body[: len(body) // 2]


def test_half_a_page_of_the_listing_is_asked_for_again(export_server, proxy):
    export_server.fill(export(4))
    proxy.spoil = lambda path, number, answer: (
        half(*answer) if "list-type" in path and number == 1 else answer
    )
    assert fetch(proxy).labels == FOUR


def test_half_a_page_that_stays_half_is_an_error(export_server, proxy):
    export_server.fill(export(4))
    proxy.spoil = lambda path, number, answer: half(*answer) if "list-type" in path else answer
    with pytest.raises(DownloadError, match="cannot be listed"):
        fetch(proxy)


def test_a_listing_that_ends_after_a_page_is_noticed(export_server, proxy):
    export_server.fill(export(1001, a_batch=1))

    def no_continuation(path, number, answer):
        status, headers, body = answer
        return status, headers, re.sub(b"<NextContinuationToken>.*?<[^>]*>", b"", body)

    proxy.spoil = no_continuation
    with pytest.raises(DataError, match="ends after 1000 files, in the middle"):
        fetch(proxy)


# The cache


def test_what_is_cached_is_not_fetched_again(export_server, proxy):
    export_server.fill(export(4))
    first = fetch(proxy)
    proxy.seen.clear()
    assert fetch(proxy) == first
    assert not fetched(proxy)
    assert not fetched(proxy, "source.jsonl")


def test_a_changed_batch_is_fetched_and_the_old_one_goes(export_server, proxy, tmp_path):
    export_server.fill(export(4))
    fetch(proxy)
    export_server.fill(export(4) | {batch(1): packed([row(2, "two"), row(3, "three")])})
    proxy.seen.clear()
    assert fetch(proxy).labels == FOUR | {2: ["two"], 3: ["three"]}
    assert len(fetched(proxy)) == 1
    kept = [path.name for path in (tmp_path / "cache").rglob("batch-1.*")]
    assert len(kept) == 1


@pytest.mark.parametrize("damage", [b"", b"\x1f\x8b rubbish"])
def test_a_damaged_cache_file_is_fetched_again(export_server, proxy, tmp_path, damage):
    export_server.fill(export(4))
    first = fetch(proxy)
    (cached,) = (tmp_path / "cache").rglob("batch-3.*")
    cached.write_bytes(damage)
    proxy.seen.clear()
    assert fetch(proxy) == first
    assert len(fetched(proxy)) == 1


def test_without_network_a_whole_cache_is_used_and_said(export_server, proxy):
    export_server.fill(export(4))
    first = fetch(proxy)
    proxy.stop()
    again = fetch(proxy)
    assert (again.labels, again.explainers) == (first.labels, first.explainers)
    assert again.report[0].startswith("no network: labels from the cache of 20")


def test_without_network_a_cache_with_a_hole_is_an_error(export_server, proxy, tmp_path):
    export_server.fill(export(4))
    fetch(proxy)
    next((tmp_path / "cache").rglob("batch-3.*")).unlink()
    proxy.stop()
    # 4 batches and source.jsonl
    with pytest.raises(DownloadError, match="cannot be listed.* holds 4 of 5 files"):
        fetch(proxy)


def test_without_network_and_cache(proxy):
    proxy.stop()
    with pytest.raises(DownloadError, match=r"Nothing of .* in the cache.*--labels-url FOLDER"):
        fetch(proxy)


def test_left_overs_of_killed_writers_go_when_they_are_old(export_server, proxy, tmp_path):
    export_server.fill(export(1))
    fetch(proxy)
    (cached,) = (tmp_path / "cache").rglob("batch-0.*")
    old, new = cached.with_name(".a.part"), cached.with_name(".b.part")
    for place in (old, new):
        place.write_bytes(b"half")
    os.utime(old, (1e9, 1e9))
    fetch(proxy)
    assert not old.exists()
    assert new.exists()


def test_a_cache_that_cannot_be_written(export_server, proxy, tmp_path, monkeypatch):
    export_server.fill(export(1))
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("SELFIE_CACHE", str(tmp_path / "file"))
    with pytest.raises(StorageError, match="cannot be written"):
        fetch(proxy)


# Where from


def test_a_local_copy_needs_neither_network_nor_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SELFIE_CACHE", str(tmp_path / "cache"))
    files = export(4)
    files[batch(3).removesuffix(".gz")] = gzip.decompress(files.pop(batch(3)))
    write_copy(tmp_path / "copy", files)
    labels = fetch_source_labels(SOURCE_ID, labels_url=str(tmp_path / "copy"), expected_sae=SAE)
    assert labels.labels == FOUR
    assert not (tmp_path / "cache").exists()
    with pytest.raises(DataError, match=f'Did you mean "{SOURCE}"'):
        fetch_source_labels(f"{MODEL}/{SOURCE}s", labels_url=f"file://{tmp_path}/copy")
    shutil.rmtree(tmp_path / "copy/v1")
    with pytest.raises(DataError, match="holds no v1/"):
        fetch_source_labels(SOURCE_ID, labels_url=str(tmp_path / "copy"))


def test_the_address_may_be_the_environments(export_server, proxy, monkeypatch):
    export_server.fill(export(4))
    monkeypatch.setenv("SELFIE_LABELS_URL", proxy.url.removesuffix(f"/{BUCKET}"))
    assert fetch_source_labels(SOURCE_ID).labels == FOUR
    assert proxy.seen[0].startswith(f"/{BUCKET}?")


def test_settings_for_other_buckets_do_not_matter(export_server, proxy, monkeypatch):
    export_server.fill(export(4))
    for name, value in {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ACCESS_KEY_ID": "someone",
        "AWS_SECRET_ACCESS_KEY": "else",
        "AWS_REGION": "eu-west-3",
    }.items():
        monkeypatch.setenv(name, value)
    assert fetch(proxy).labels == FOUR


def test_by_default_it_is_the_public_bucket(monkeypatch):
    monkeypatch.delenv("SELFIE_LABELS_URL", raising=False)
    bucket = open_bucket()
    assert bucket.url == "https://s3.us-east-1.amazonaws.com/neuronpedia-datasets"
    config = bucket.store.config
    assert config["bucket"] == BUCKET
    assert config["endpoint"] == "https://s3.us-east-1.amazonaws.com"
    assert config["skip_signature"] in (True, "true")


@pytest.mark.parametrize(
    ("url", "error", "message"),
    [
        ("/no/such/folder", MissingFileError, "holds v1/"),
        ("ftp://server/x", DataError, "is not an address"),
        ("https://", DataError, "is not an address"),
    ],
)
def test_an_address_that_is_none(url, error, message):
    with pytest.raises(error, match=message):
        open_bucket(url)


@pytest.mark.parametrize(
    "content",
    [b"{", b'{"batches": [{"path": "\xff"}]}', b'{"x": ' + b"[" * 100_000],
    ids=["cut off", "not UTF-8", "nested"],
)
def test_a_damaged_saved_listing_counts_as_none(content, tmp_path):
    (tmp_path / "listing.json").write_bytes(content)
    assert _read_saved(tmp_path / "listing.json") is None
