from __future__ import annotations

import io
import json
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save

from selfie_adapters.errors import DataError
from selfie_adapters.serving.requests import (
    LabelRequest,
    ReadRequest,
    RefusedError,
    as_vectors,
    parse_json,
    vectors_of,
)

ROWS = torch.arange(6, dtype=torch.float32).reshape(2, 3) / 7


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.mark.parametrize(
    "body",
    [
        npy(ROWS.numpy()),
        npy(np.asfortranarray(ROWS.numpy())),
        npy(ROWS.numpy().astype(np.float64)),
        npy(ROWS.numpy().astype(">f4")),
        save({"x": ROWS}),
        json.dumps(ROWS.tolist()).encode(),
        b"  " + json.dumps({"vectors": ROWS.tolist()}).encode(),
    ],
)
def test_every_form_gives_the_same_vectors(body):
    assert vectors_of(body).equal(ROWS)


@pytest.mark.parametrize("body", [npy(ROWS[0].numpy()), save({"x": ROWS[0]}), b"[0, 0.5]"])
def test_one_vector_needs_no_outer_axis(body):
    assert vectors_of(body).shape[0] == 1


def test_half_precision_and_whole_numbers_in_json_are_read():
    assert vectors_of(npy(ROWS.numpy().astype(np.float16))).allclose(ROWS, atol=1e-3)
    assert vectors_of(save({"x": ROWS.bfloat16()})).allclose(ROWS, atol=1e-2)
    assert as_vectors([1, 2]).tolist() == [[1.0, 2.0]]


def claiming(shape):
    """A .npy header that claims `shape`, followed by eight bytes."""
    body = npy(np.zeros(2, np.float32))
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return body[:10] + text.encode() + body[128:]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "neither .npy, .safetensors nor JSON"),
        (b"hello", "neither"),
        (b"\x80\x04K\x01.", "neither"),
        (b"[1, 2", "begins like JSON and is none"),
        (b"[" * 100_000, "begins like JSON and is none"),
        (b"[[1, 2], [3]]", "of one length"),
        (b'["a"]', "list of numbers"),
        (b"{}", "list of numbers"),
        (b"[]", r"\[n, d_model\]"),
        (b"[[[1.0]]]", r"\[1, 1, 1\]"),
        (b"[1e999]", None),
        (npy(np.arange(3)), "it holds int64"),
        (npy(ROWS.numpy())[:-4], "header does not fit its length"),
        (claiming("(10000000000000,)"), "header does not fit its length"),
        (claiming("(-2,)"), "npy"),
        (b"\x93NUMPY\x09\x00", "npy"),
        (save({"a": ROWS, "b": ROWS + 1}), "holds 2 tensors"),
        (save({"a": ROWS.long()}), "int64"),
        (save({"a": ROWS})[:-3], "neither"),
        (b"\xff" * 8 + b"{}", "neither"),
    ],
)
def test_what_is_no_vector_is_refused(body, message):
    if message is None:  # infinity is a number here, and refused with the other checks
        assert not vectors_of(body).isfinite().all()
    else:
        with pytest.raises(DataError, match=message):
            vectors_of(body)


def test_pickled_objects_are_never_loaded():
    file = io.BytesIO()
    np.save(file, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"npy"):
        vectors_of(file.getvalue())
    with pytest.raises(DataError, match="neither"):
        vectors_of(pickle.dumps([1.0]))


@pytest.mark.parametrize(
    ("kind", "body", "message"),
    [
        (ReadRequest, b"no", "the body: Invalid JSON"),
        (ReadRequest, b"{}", "prompt: Field required"),
        (ReadRequest, b'{"prompt": 5}', "prompt: Input should be a valid string"),
        (ReadRequest, b'{"prompt": "a", "promt": 1}', "promt: Extra inputs"),
        (ReadRequest, b'{"prompt": "a", "adapters": []}', "adapters"),
        (ReadRequest, b'{"prompt": "a", "adapters": [0, 1, 2]}', "adapters"),
        (ReadRequest, b'{"prompt": "a", "chat": "x"}', "chat"),
        (ReadRequest, b"[" * 100_000, "the body"),
        (LabelRequest, b'{"scales": []}', "scales"),
        (LabelRequest, b'{"scales": ["1"]}', "scales.0"),
    ],
)
def test_a_bad_request_says_what_is_wrong(kind, body, message):
    with pytest.raises(RefusedError, match=message) as refused:
        parse_json(kind, body)
    assert refused.value.status == 400
