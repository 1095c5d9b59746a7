"""Mean files as the published programs write them."""

import pytest
import torch
from safetensors.torch import save_file

from selfie_adapters.dataset.captured import Captured
from selfie_adapters.errors import DataError
from selfie_adapters.labelling.centering import load_mean, mean_layers
from selfie_adapters.reading.means import read_means

MEAN = torch.arange(6.0)


def test_one_mean_in_a_pt_file_is_of_its_only_layer(tmp_path):
    torch.save(MEAN, tmp_path / "mean.pt")
    assert torch.equal(load_mean(tmp_path / "mean.pt", 19, 6), MEAN)
    assert torch.equal(read_means(tmp_path / "mean.pt", [19], 6).at([0], 1)[0], MEAN[None])
    assert Captured.by_mean_file(tmp_path / "mean.pt") == Captured()
    with pytest.raises(DataError, match="states the layer"):
        mean_layers(tmp_path / "mean.pt")
    with pytest.raises(DataError, match="the mean of one layer; 2 layers are read"):
        read_means(tmp_path / "mean.pt", [1, 2], 6)
    with pytest.raises(DataError, match=r"shape \[6\]; \[8\]"):
        load_mean(tmp_path / "mean.pt", 19, 8)


def test_a_published_name_states_the_layer(tmp_path):
    path = tmp_path / "llama_31_8b_fifty_thousand_things_l12_mean.pt"
    torch.save(MEAN, path)
    assert mean_layers(path) == [12]
    assert torch.equal(load_mean(path, 12, 6), MEAN)
    with pytest.raises(DataError, match=r"mean of layer 12.*vectors are of layer 13"):
        load_mean(path, 13, 6)
    with pytest.raises(DataError, match="no mean vector layer_13; it holds layers 12"):
        read_means(path, [13], 6)


def test_a_mean_stored_with_its_vectors_and_a_dictionary_of_layers(tmp_path):
    content = {"vectors": torch.ones(3, 6), "labels": ["a", "b", "c"], "mean_vector": MEAN}
    torch.save({**content, "metadata": {"layer_idx": 19}}, tmp_path / "set.pt")
    assert torch.equal(load_mean(tmp_path / "set.pt", 19, 6), MEAN)
    torch.save({"layer_3": MEAN, "layer_4": MEAN + 1}, tmp_path / "layers.pt")
    assert mean_layers(tmp_path / "layers.pt") == [3, 4]
    assert torch.equal(read_means(tmp_path / "layers.pt", [4], 6).at([0], 1)[0], MEAN[None] + 1)
    torch.save({"a": MEAN, "b": MEAN}, tmp_path / "two.pt")
    with pytest.raises(DataError, match="found a, b"):
        load_mean(tmp_path / "two.pt", 1, 6)


def test_safetensors_of_many_layers(tmp_path):
    save_file({f"layer_{i}": MEAN + i for i in range(80)}, tmp_path / "mean-vectors.safetensors")
    assert mean_layers(tmp_path / "mean-vectors.safetensors") == list(range(80))
    assert torch.equal(load_mean(tmp_path / "mean-vectors.safetensors", 79, 6), MEAN + 79)
