from __future__ import annotations

import pytest
import torch

from selfie_adapters.errors import DataError, ModelError
from selfie_adapters.inference.logit_lens import check_lens, lens_logits, lens_words
from selfie_adapters.model import FrozenModel, capture
from selfie_adapters.model.library import forward
from tiny import FAMILIES, RECURRENT, golden_tokenizer, tiny_network

IDS = torch.tensor([[256, 84, 101, 108, 108]])
READABLE = (*FAMILIES, *RECURRENT, "gpt2", "openai-gpt", "opt")


def model_of(family: str) -> FrozenModel:
    return FrozenModel(tiny_network(family), golden_tokenizer(), f"tiny {family}")


@pytest.mark.parametrize("family", READABLE)
def test_the_last_blocks_states_give_the_models_own_next_tokens(family):
    model = model_of(family)
    states = capture(model, IDS, [model.n_layers - 1])[0, 0]
    expected = forward(model.network, input_ids=IDS, use_cache=False).logits[0].argmax(dim=-1)
    (logits,) = lens_logits(model, states)
    assert logits.argmax(dim=-1).tolist() == expected.tolist()


def test_the_word_is_the_norms_weight_and_the_unembedding_by_hand():
    model = model_of("llama")
    norm = model.network.get_decoder().norm
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(-2, 3, 32))
    vectors = torch.randn(40, 32, generator=torch.Generator().manual_seed(1))
    by_hand = (vectors * norm.weight) @ model.network.get_output_embeddings().weight.T
    words = [golden_tokenizer().decode([row]).strip() for row in by_hand.argmax(dim=1)]
    assert lens_words(model, vectors) == words
    assert lens_words(model, 7.0 * vectors) == words  # the length says nothing
    assert lens_words(model, vectors[:0]) == []


def test_gemmas_norm_multiplies_by_one_plus_its_weight():
    model = model_of("gemma3_text")
    norm = model.network.get_decoder().norm
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(-2, 3, 32))
    vectors = torch.randn(40, 32, generator=torch.Generator().manual_seed(1))
    by_hand = (vectors * (1 + norm.weight)) @ model.network.get_output_embeddings().weight.T
    (logits,) = lens_logits(model, vectors)
    assert logits.argmax(dim=1).tolist() == by_hand.argmax(dim=1).tolist()


def test_many_vectors_come_in_pieces_and_in_order():
    model = model_of("llama")
    vectors = torch.randn(600, 32, generator=torch.Generator().manual_seed(2))
    pieces = list(lens_logits(model, vectors))
    assert [len(piece) for piece in pieces] == [256, 256, 88]
    (alone,) = lens_logits(model, vectors[300:301])
    assert torch.allclose(torch.cat(pieces)[300], alone[0], atol=1e-4)


def test_what_cannot_be_read_is_refused():
    model = model_of("llama")
    with pytest.raises(DataError, match=r"shape \[3, 31\]: \[n, 32\] is expected"):
        lens_words(model, torch.zeros(3, 31))
    odd = model_of("gemma3n_text")  # several predictions of the stream, merged before the norm
    with pytest.raises(ModelError, match="no logit lens for it"):
        check_lens(odd)
    with pytest.raises(ModelError, match="no logit lens for it"):
        lens_words(odd, torch.zeros(1, 32))
