"""Standard output of every kind: encodings, widths, closed pipes."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import loaded_process
from selfie_adapters import output

SELFIE = [sys.executable, "-m", "selfie_adapters"]


@pytest.fixture(scope="module")
def training_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    save_file({"vectors": torch.ones(4, 3)}, folder / "x.safetensors")
    metadata = {"dataset_name": "é🦉", "filename": "x.safetensors", "layer": 1}
    metadata |= {"source": "ü", "vector_type": "ß"}
    items = [
        {"index": i, "labels": ["Ελληνικά 日本語 🦉"], "split": "val" if i == 3 else "train"}
        for i in range(4)
    ]
    file = folder / "x.json"
    file.write_text(json.dumps([{"metadata": metadata, "vectors": items}]))
    return str(file)


@pytest.fixture(scope="module")
def commands(golden_dir, training_file):
    adapter = str(golden_dir / "adapters/scalar_affine_norm.safetensors")
    return {
        "adapter show": ["adapter", "show", adapter],
        "data inspect": ["data", "inspect", training_file],
        "data check": ["data", "check", training_file],
        "prepare list": ["prepare", "list", "gpt2-small", "hook-z"],
        "prepare list --json": ["prepare", "list", "gpt2-small", "hook-z", "--json"],
        "prompt show": ["prompt", "show", "--model", str(golden_dir / "model")],
        "help": ["label", "--help"],
    }


def run(command, **environment):
    return subprocess.run(
        [*SELFIE, *command],
        capture_output=True,
        encoding="utf-8",
        errors="surrogateescape",
        env={**os.environ, **environment},
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize(
    "name", ["adapter show", "data inspect", "data check", "prepare list", "prompt show", "help"]
)
def test_any_encoding_and_width_will_do(commands, name, tmp_path):
    narrow = {"PYTHONIOENCODING": "ascii", "COLUMNS": "20"}
    if name in ("prepare list", "help"):  # they load no torch
        done = run(commands[name], **narrow)
    else:
        command = ["-m", "selfie_adapters", *commands[name]]
        done = loaded_process.run(command, tmp_path, **narrow)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.strip()
    assert done.stdout.isascii()
    assert "\x1b" not in done.stdout  # nothing but text into a pipe
    if name == "data inspect":
        assert "\\ud83e\\udd89" in done.stdout  # the owl, not a question mark


def test_labels_are_written_under_any_locale(golden_dir, tmp_path):
    command = ["label", str(golden_dir / "vectors.safetensors"), "--limit", "2"]
    command += ["--model", str(golden_dir / "model"), "--out", str(tmp_path / "out")]
    command += ["--adapter", str(golden_dir / "adapters/scalar_affine_norm.safetensors")]
    done = run(command, COLUMNS="0", LANG="C", LC_ALL="C", PYTHONIOENCODING="cp1252")
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    assert (tmp_path / "out/labels-00000.jsonl").read_text(encoding="utf-8").count("\n") == 2


@pytest.mark.parametrize("name", ["adapter show", "prepare list --json", "help"])
def test_a_reader_that_goes_away_ends_the_command_in_silence(commands, name):
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [*SELFIE, *commands[name]], stdout=write, stderr=subprocess.PIPE, timeout=300, check=False
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (output.CLOSED, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_output_that_cannot_be_written_is_one_line(commands):
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*SELFIE, *commands["help"]],
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=300,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.decode().splitlines() == ["error: output: No space left on device."]


def test_a_command_without_output_works(commands):
    done = subprocess.run(
        ["bash", "-c", '"$@" >&- 2>&-', "bash", *SELFIE, *commands["help"]],
        timeout=300,
        check=False,
    )
    assert done.returncode == 0


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "utf-8"])
@pytest.mark.parametrize("text", ["é🦉 \x7f ﻿", "\udc80 half \ud83e", "…–→█", ""])
def test_json_stays_json_in_every_encoding(monkeypatch, encoding, text):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    with output.prepared():
        stream.write(json.dumps([text], ensure_ascii=False))
        stream.flush()
    assert json.loads(raw.getvalue().decode(encoding)) == [text]
    assert stream.errors == "strict"


@pytest.mark.parametrize(
    ("columns", "laid_out_for"),
    [("0", "80"), ("-5", "80"), ("x", "80"), ("20", "60"), ("200", "200"), (None, None)],
)
def test_the_width_that_tables_are_laid_out_for(monkeypatch, columns, laid_out_for):
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr(os, "get_terminal_size", lambda *_: os.terminal_size((80, 24)))
    if columns is not None:
        monkeypatch.setenv("COLUMNS", columns)
    with output.prepared():
        assert os.environ.get("COLUMNS") == laid_out_for
    assert os.environ.get("COLUMNS") == columns
