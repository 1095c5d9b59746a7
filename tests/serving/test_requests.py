from __future__ import annotations

import io
import json
import pickle
import resource

import numpy as np
import pytest
import torch
from safetensors.torch import save

from selfie_adapters.errors import DataError
from selfie_adapters.serving.requests import (
    LabelRequest,
    ReadRequest,
    RefusedError,
    parse_request,
    vectors_in,
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
    assert vectors_in([1, 2]).tolist() == [[1.0, 2.0]]


def claiming(shape):
    """A .npy header that claims `shape`, followed by eight bytes."""
    body = npy(np.zeros(2, np.float32))
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return body[:10] + text.encode() + body[128:]


# A header that ends in the middle of a dictionary, and then is nothing.
GARBLED = b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (3, 8".ljust(
    240
)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the file is empty"),
        (b"hello", "neither"),
        (b"\x80\x04K\x01.", "neither"),
        (b"[1, 2", r"the file, line 1, column \d: not JSON"),
        (b"[" * 100_000, "too deeply|not JSON"),
        (b"[[1, 2], [3]]", "of one length"),
        (b'["a"]', "list of numbers"),
        (b"{}", "list of numbers"),
        (b"[true, false]", "list of numbers"),
        (b'{"vectors": {"a": 1}}', "list of numbers"),
        (b"[null]", "list of numbers"),
        (b"[1" + b"0" * 5000 + b"]", "list of numbers|out of range"),
        (b"[" * 60 + b"1" + b"]" * 60, "list of numbers"),
        (GARBLED, "not a plain .npy array"),
        (b"PK\x03\x04" + bytes(200), "neither"),
        (b"[]", r"\[n, d_model\]"),
        (b"[[[1.0]]]", "list of numbers"),
        (b"[1e999]", "out of range"),
        (npy(np.arange(3)), "holds torch.int64; floating"),
        (npy(ROWS.numpy())[:-4], "the file: cut off: the header claims 24 bytes"),
        (claiming("(10000000000000,)"), "claims 40,000,000,000,000 bytes"),
        (claiming("(-2,)"), "npy"),
        (b"\x93NUMPY\x09\x00", "npy"),
        (save({"a": ROWS, "b": ROWS + 1}), "holds 2 tensors"),
        (save({"a": ROWS.long()}), "int64"),
        (save({"a": ROWS})[:-3], "neither"),
        (b"\xff" * 8 + b"{}", "neither"),
    ],
)
def test_what_is_no_vector_is_refused(body, message):
    with pytest.raises(DataError, match=message) as refused:
        vectors_of(body)
    assert "/tmp" not in str(refused.value)  # nobody's business where the upload was put
    assert len(str(refused.value)) < 400


def test_pickled_objects_are_never_loaded():
    file = io.BytesIO()
    np.save(file, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="pickled objects, which are never loaded"):
        vectors_of(file.getvalue())
    with pytest.raises(DataError, match="neither"):
        vectors_of(pickle.dumps([1.0]))


@pytest.mark.parametrize(
    ("kind", "body", "message"),
    [
        (ReadRequest, b"no", "the body, line 1, column 3: not JSON"),
        (ReadRequest, b"{}", "prompt: missing. Add it."),
        (ReadRequest, b'{"prompt": 5}', "prompt: Input should be a valid string"),
        (ReadRequest, b'{"prompt": "a", "promt": 1}', 'promt: unknown. Did you mean "prompt"'),
        (ReadRequest, b'{"prompt": "a", "adapters": []}', "adapters"),
        (ReadRequest, b'{"prompt": "a", "adapters": [0, 1, 2]}', "adapters"),
        (ReadRequest, b'{"prompt": "a", "chat": "x"}', "chat"),
        (ReadRequest, b"[" * 100_000, "the body"),
        (LabelRequest, b'{"scales": []}', "scales"),
        (LabelRequest, b'{"scales": ["1"]}', "scales.0"),
        (LabelRequest, b'{"scales": [NaN]}', "scales.0: Input should be a finite number"),
        (LabelRequest, b'{"scales": [1e999]}', "out of range|finite"),
        (LabelRequest, b'{"scales": {"0": 1}}', "scales: Input should be a valid list"),
        (LabelRequest, b'{"adapters": [true]}', "adapters.0: Input should be a valid integer"),
        (LabelRequest, b'{"adapters": [1' + b"0" * 5000 + b"]}", "out of range|adapters"),
        (LabelRequest, b"[1]", "the body: a mapping, key: value, is expected, found "),
        (LabelRequest, b"null", "the body: a mapping, key: value, is expected, found "),
        (LabelRequest, "{}".encode("utf-16"), "UTF-16"),
        (LabelRequest, b'{"' + b"x" * 100_000 + b'": 1}', "unknown"),
    ],
)
def test_a_bad_request_says_what_is_wrong(kind, body, message):
    with pytest.raises(RefusedError, match=message) as refused:
        parse_request(kind, body)
    assert refused.value.status == 400
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize("body", [b'{"vectors": [' + b'"x",' * 240_000 + b"0]}", b'{"a":1,' * 2])
def test_many_errors_in_one_body_cost_no_more_than_one(body):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError if b"x" in body else RefusedError):
        vectors_in(parse_request(LabelRequest, body).vectors)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024  # kB


def test_a_request_with_a_byte_order_mark_and_half_an_emoji_is_read():
    assert parse_request(ReadRequest, b'\xef\xbb\xbf{"prompt": "a\\ud83e"}').prompt == "a\ufffd"
