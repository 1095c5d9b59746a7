"""`as_vectors`: tensors, arrays and lists of numbers become [n, d_model]."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from selfie_adapters.dataset.vectors import as_vectors
from selfie_adapters.errors import DataError

ROWS = [[1.0, -2.0, 0.5], [0.0, 3.0, 4.0]]
FROZEN = np.array(ROWS, np.float32)
FROZEN.flags.writeable = False


@pytest.mark.parametrize(
    "values",
    [
        ROWS,
        [[1, -2, 0.5], (0, 3, 4)],
        [np.array(ROWS[0]), ROWS[1]],
        [torch.tensor(ROWS[0]), np.array(ROWS[1])],
        torch.tensor(ROWS, dtype=torch.float64),
        np.array(ROWS, np.float16),
        np.array(ROWS, ">f4"),
        np.array(ROWS)[::-1][::-1],
        torch.tensor(ROWS).to_sparse(),
        torch.tensor(ROWS).to(torch.float8_e4m3fn),
        FROZEN,
    ],
)
def test_every_form_gives_the_same_float32_rows(values):
    found = as_vectors(values)
    assert found.dtype == torch.float32
    assert found.tolist() == ROWS


@pytest.mark.parametrize("values", [[1, 2], np.array([1, 2]), torch.tensor([1, 2])])
def test_one_vector_needs_no_outer_axis(values):
    assert as_vectors(values).tolist() == [[1.0, 2.0]]


def test_tensors_keep_dtype_and_memory():
    half = torch.ones(2, 3, dtype=torch.bfloat16)
    assert as_vectors(half) is half


def test_numbers_past_float32_become_infinity_and_no_warning():
    assert as_vectors([1e300, 2**70]).tolist() == [[float("inf"), float(2**70)]]


@pytest.mark.parametrize(
    "values",
    [
        [[1.0], [1.0, 2.0]],
        [torch.ones(2), torch.ones(3)],
        ["1.5", "2"],
        [1.0, None],
        [1.0, True],
        torch.ones(2, 3, device="meta"),
        [10**400],
        [1j],
        np.array([True, False]),
        np.array(["a"]),
        np.array([1j]),
        torch.tensor([True]),
        torch.tensor([1j]),
        3.5,
        None,
        "vectors",
        {"a": 1},
        [[[1.0]]],
        torch.zeros(1, 1, 1),
    ],
    ids=str,
)
def test_what_is_no_vector_is_one_error(values):
    with pytest.raises(DataError, match="expected"):
        as_vectors(values)
