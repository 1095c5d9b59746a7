"""Damaged request bodies end in an error with one sentence, or in checked vectors."""

from __future__ import annotations

import io
import random

import numpy as np
import torch
from safetensors.torch import save

from fuzz.harness import run
from fuzz.mutations import damage_bytes, damage_json, damage_safetensors
from selfie_adapters.errors import SelfieError
from selfie_adapters.serving.requests import (
    LabelRequest,
    ReadRequest,
    parse_request,
    vectors_in,
    vectors_of,
)

READ = b'{"prompt": "two owls", "layers": "1:", "positions": "0", "chat": "none", "adapters": [0]}'
LABEL = b'{"vectors": [[0.5, 1], [2, -3.5]], "scales": [1.0, 2.0], "adapters": [0, 1]}'


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


UPLOADS = (
    _npy(np.ones((3, 8), "<f4")), _npy(np.ones((3, 8), ">f8", order="F")), b"[[0.5, 1], [2, 3]]",
    save({"x": torch.ones(3, 8)}), save({"x": torch.ones(3, 8, dtype=torch.bfloat16)}),
    b'{"vectors": [[0.5, 1], [2, 3]]}',
)  # fmt: skip


def one_sentence(work) -> None:
    try:
        work()
    except SelfieError as error:
        _is_one_sentence(str(error))
        raise


def _is_one_sentence(message: str) -> None:
    assert 5 < len(message) < 1000
    assert "/tmp" not in message


def test_damaged_requests(tmp_path):
    def read(path):
        body = path.read_bytes()
        if b"prompt" in body:
            one_sentence(lambda: parse_request(ReadRequest, body))
            return

        def label():
            wanted = parse_request(LabelRequest, body)
            assert all(-1e400 < scale < 1e400 for scale in wanted.scales)
            assert vectors_in(wanted.vectors).dtype == torch.float32

        one_sentence(label)

    def make_valid(rng: random.Random) -> bytes:
        return rng.choice((READ, LABEL))

    run("web request", tmp_path, make_valid, damage_json, read, names_file=False)


def test_damaged_uploads(tmp_path):
    def mutate(rng: random.Random, data: bytes) -> bytes:
        if data[:1] in (b"[", b"{"):
            return damage_json(rng, data)
        return damage_safetensors(rng, data) if data[8:9] == b"{" else damage_bytes(rng, data)

    def read(path):
        def upload():
            vectors = vectors_of(path.read_bytes())
            assert vectors.ndim == 2
            assert vectors.dtype == torch.float32
            assert vectors.numel()

        one_sentence(upload)

    run("web upload", tmp_path, lambda rng: rng.choice(UPLOADS), mutate, read, names_file=False)
