from __future__ import annotations

import hashlib
import json

import pytest

from selfie_adapters.dataset import split_indices
from selfie_adapters.errors import DataError


@pytest.mark.parametrize("which", range(5))
def test_golden_splits(golden, which):
    case = golden["splits"][which]
    indices = case.get("indices") or list(range(0, 2 * case["labelled"], 2))
    train, val = split_indices(reversed(indices), case["val_fraction"], case["seed"])
    assert len(val) == case["val_count"]
    known = case.get("val") or case["val_first"]
    assert val[: len(known)] == known
    digests = {
        hashlib.sha256(text.encode()).hexdigest()
        for text in (json.dumps(val), ",".join(map(str, val)), "\n".join(map(str, val)))
    }
    assert case["val_sha256"] in digests
    assert sorted(train + val) == sorted(indices)
    assert train == sorted(train)


@pytest.mark.parametrize(
    ("indices", "fraction", "message"),
    [
        ([1], 0.1, "1 labelled rows"),
        ([1, 2], 1.0, "val_fraction is 1.0"),
        ([1, 2], 0.0, "val_fraction is 0.0"),
        ([1, 1, 2], 0.5, "twice"),
    ],
)
def test_what_cannot_be_split_is_refused(indices, fraction, message):
    with pytest.raises(DataError, match=message):
        split_indices(indices, fraction)


@pytest.mark.parametrize("seed", [-1, 2**32, 10**40])
def test_a_seed_that_numpy_does_not_take_is_refused(seed):
    with pytest.raises(DataError, match="seed is"):
        split_indices([1, 2, 3], 0.5, seed)
