"""Means by kind of position: which one a token and a section's vectors get."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from selfie_adapters.dataset.captured import kind_of_token, stated_kind
from selfie_adapters.errors import DataError
from selfie_adapters.labelling.centering import load_mean, mean_kinds, mean_layers
from selfie_adapters.reading.means import read_means


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "means.safetensors"
    values = {"layer_8_at_-1": 1.0, "layer_8_at_name": 2.0, "layer_12_at_-1": 3.0, "layer_20": 4.0}
    values |= {"layer_24_at_-1": 5.0, "layer_24_at_-2": 6.0}
    save_file({name: torch.full((4,), value) for name, value in values.items()}, path)
    return path


@pytest.mark.parametrize(
    ("position", "known", "kind"),
    [
        (9, ("-1", "name"), "-1"),
        (8, ("-1", "name"), "name"),
        (8, ("-2", "-1", "name"), "-2"),
        (5, ("5", "name"), "5"),
        (3, ("-1",), "-1"),  # the only kind there is
        (3, ("-1", None), None),
        (9, ("-1", None), "-1"),
    ],
)
def test_the_kind_of_a_token_of_ten(position, known, kind):
    assert kind_of_token(position, 10, known) == kind


def test_a_token_of_no_known_kind():
    with pytest.raises(KeyError):
        kind_of_token(3, 10, ("-1", "-2"))
    with pytest.raises(KeyError):
        kind_of_token(3, 10, ())


def test_what_a_section_states():
    assert stated_kind({"position": -1}) == "-1"
    assert stated_kind({"position": "name"}) == "name"
    for other in ("null", None, True, 1.5, "-1x"):
        assert stated_kind({"position": other}) is None
    assert stated_kind({}) is None


def test_each_token_gets_the_mean_of_its_block_and_kind(file):
    means = read_means(file, [8, 12, 20], 4).at([0, 8, 9], 10)
    assert means.shape == (3, 3, 4)
    assert means[:, :, 0].tolist() == [[2, 2, 1], [3, 3, 3], [4, 4, 4]]
    assert mean_layers(file) == [8, 12, 20, 24]
    assert mean_kinds(file, 8) == ["-1", "name"]
    assert mean_kinds(file, 20) == [None]


def test_a_token_without_a_mean_is_refused_with_what_is_there(file):
    means = read_means(file, [24], 4)
    assert means.at([8, 9], 10)[0, :, 0].tolist() == [6, 5]
    message = r"token 3 of 10 \(-7 from the end\); it holds layer_24_at_-1, layer_24_at_-2"
    with pytest.raises(DataError, match=message):
        means.at([3], 10)


def test_vectors_get_the_mean_of_their_own_kind(file):
    assert load_mean(file, 8, 4, "name").tolist() == [2.0] * 4
    assert load_mean(file, 12, 4).tolist() == [3.0] * 4  # the only one
    assert load_mean(file, 20, 4, "name").tolist() == [4.0] * 4  # of no stated kind: of all
    with pytest.raises(DataError, match=r"no mean layer_12_at_name; it holds layer_12_at_-1"):
        load_mean(file, 12, 4, "name")
    with pytest.raises(DataError, match=r"layer_8_at_-1, layer_8_at_name.*do not state"):
        load_mean(file, 8, 4)
    with pytest.raises(DataError, match='no tensor "layer_9"'):
        load_mean(file, 9, 4, "name")
