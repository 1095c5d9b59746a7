from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from selfie_adapters.errors import DataError, MissingFileError
from selfie_adapters.labelling.centering import load_mean


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mean-vectors.safetensors"
    tensors = {
        "layer_18": torch.arange(6.0).half(),
        "layer_19": torch.ones(6),
        "layer_20": torch.ones(1, 6),
        "layer_21": torch.full((6,), torch.nan),
    }
    save_file(tensors, path)
    return path


def test_the_layers_mean_is_read_as_float32(file):
    mean = load_mean(file, 18, 6)
    assert mean.dtype == torch.float32
    assert mean.tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("layer", "width", "message"),
    [
        (17, 6, 'no tensor "layer_17". Did you mean "layer_'),
        (19, 8, r"layer_19: shape \[6\]; \[8\] is expected"),
        (20, 6, r"layer_20: shape \[1, 6\]; \[6\] is expected"),
        (21, 6, "layer_21: holds NaN"),
    ],
)
def test_a_mean_that_does_not_fit_is_refused(file, layer, width, message):
    with pytest.raises(DataError, match=message):
        load_mean(file, layer, width)


def test_what_is_no_safetensors_file_is_refused(tmp_path):
    (tmp_path / "m.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(DataError, match="not a safetensors file"):
        load_mean(tmp_path / "m.safetensors", 1, 6)
    with pytest.raises(MissingFileError):
        load_mean(tmp_path / "n.safetensors", 1, 6)
