"""Labels as directions of the model's own states."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from selfie_adapters.adapters import load_adapter
from selfie_adapters.errors import ConfigError, DataError
from selfie_adapters.labelling.decomposition.reconstruction import (
    FRAMES,
    Reconstructor,
    explained,
    orthonormal,
    without,
)
from selfie_adapters.model.user_text import UserText, usual_chat
from selfie_adapters.sources.topics.reading import topic_vectors


@pytest.fixture
def reconstructor(model, golden_dir, tmp_path):
    mean = tmp_path / "m.safetensors"
    kinds = {f"layer_1_at_{kind}": torch.full((48,), 0.1) for kind in ("name", "-1")}
    save_file(kinds, mean)
    adapter = load_adapter(golden_dir / "adapters/scalar_affine_norm.safetensors")
    return Reconstructor(model, adapter, mean)


def test_the_share_of_a_span_is_that_of_its_coordinates():
    span = orthonormal(torch.tensor([[2.0, 0, 0, 0], [3.0, 5.0, 0, 0], [1.0, 1.0, 0, 0]]))
    vector = torch.tensor([1.0, 2.0, 3.0, 1.0])
    assert len(span) == 2
    assert explained(vector, span) == pytest.approx((1 + 4) / 15, rel=1e-6)
    rest = without(vector, span)
    assert torch.allclose(rest, torch.tensor([0.0, 0, 3, 1]), atol=1e-5)
    assert explained(rest, span) == pytest.approx(0, abs=1e-9)


def test_nothing_explains_nothing():
    empty = torch.empty(0, 3)
    assert explained(torch.ones(3), empty) == 0
    assert explained(torch.zeros(3), torch.eye(3)) == 0
    assert orthonormal(torch.zeros(2, 3)).shape == (0, 3)
    assert torch.equal(without(torch.ones(3), empty), torch.ones(3))


def test_a_last_token_is_explained_by_the_question_about_its_own_label(model, reconstructor):
    tokenizer = model.tokenizer
    text = UserText(tokenizer, usual_chat(tokenizer)).text("Tell me about owl.")
    state = topic_vectors(model, [text], [1], -1)[0, 0] - 0.1
    (own,) = reconstructor.spans(["owl"], (1, "-1"))
    assert own.shape == (1, 48)
    assert explained(state, own) == pytest.approx(1, abs=1e-5)


def test_a_label_in_several_sentences_spans_several_directions(reconstructor):
    first, empty, again = reconstructor.spans(["owl", " ", "owl"], (1, "name"))
    assert 1 < len(first) <= FRAMES
    assert torch.equal(first, again)
    assert torch.allclose(first @ first.T, torch.eye(len(first)), atol=1e-4)
    assert empty.shape == (0, 48)


def test_what_is_not_known_is_refused(model, golden_dir, reconstructor):
    with pytest.raises(ConfigError, match="--layer"):
        reconstructor.spans(["owl"], (None, "name"))
    with pytest.raises(DataError, match='no tensor "layer_0"'):
        reconstructor.spans(["owl"], (0, "name"))
    bare = load_adapter(golden_dir / "adapters/scalar_affine_norm.safetensors")
    with pytest.raises(ConfigError, match="no file of means"):
        Reconstructor(model, bare)
