import pytest
import torch

from selfie_adapters.chat import Message
from selfie_adapters.errors import DataError
from selfie_adapters.evaluation.scoring.conversations import ChatTokens, chat_tokens
from selfie_adapters.evaluation.scoring.maximum_activations import maximum_activations
from selfie_adapters.model import FrozenModel
from selfie_adapters.sources.sae.encoder import encoder_of
from tiny import D_MODEL, golden_tokenizer, tiny_network
from tiny_sae import D_SAE, tiny_sae

LAYER = 1
HOOK = f"blocks.{LAYER}.hook_resid_post"
TEXTS = ("hello", "what is an owl?", "é", "a longer one, so that the rest is padded to it")


def conversations(tokenizer, texts=TEXTS):
    return [
        chat_tokens(tokenizer, [Message("user", t), Message("assistant", "yes")]) for t in texts
    ]


def plain_maxima(network, sae, one: ChatTokens, latent: int):
    """Alone, without padding, through the whole network; layer L is entry L + 1."""
    with torch.no_grad():
        states = network(torch.tensor([one.ids]), output_hidden_states=True).hidden_states
        activations = sae.encode(states[LAYER + 1])[0, :, latent].tolist()
    said = [a for a, content in zip(activations, one.content, strict=True) if content]
    return max(activations[1:], default=0.0), max(said, default=0.0)


@pytest.mark.parametrize("kind", ["jumprelu", "topk"])
@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt_neox"])
def test_maximums_are_those_of_each_conversation_alone(family, kind):
    network, tokenizer = tiny_network(family), golden_tokenizer()
    sae = tiny_sae(kind, HOOK, d_in=D_MODEL)
    model = FrozenModel(network, tokenizer, "tiny")
    ready = conversations(tokenizer)
    latents = torch.tensor([[3, 9], [9, 17], [0, D_SAE - 1], [17, 3]])
    found = maximum_activations(model, encoder_of(sae, range(D_SAE)), ready, latents, batch_size=3)
    assert bool((found.anywhere > found.content).any())  # template tokens do count there
    for row, one in enumerate(ready):
        for column, latent in enumerate(latents[row].tolist()):
            anywhere, content = plain_maxima(network, sae, one, latent)
            assert float(found.anywhere[row, column]) == pytest.approx(anywhere, rel=1e-3, abs=1e-4)
            assert float(found.content[row, column]) == pytest.approx(content, rel=1e-3, abs=1e-4)


def test_position_0_does_not_count_where_nothing_is_shared():
    network = tiny_network("llama")
    sae = tiny_sae("standard", HOOK, d_in=D_MODEL)
    ready = [ChatTokens((5, 9, 7), (False, True, False)), ChatTokens((8,), (False,))]
    model = FrozenModel(network, golden_tokenizer(), "tiny")
    latents = torch.arange(D_SAE).expand(2, -1)
    found = maximum_activations(model, encoder_of(sae, range(D_SAE)), ready, latents)
    wanted = [[plain_maxima(network, sae, one, i)[0] for i in range(D_SAE)] for one in ready]
    torch.testing.assert_close(found.anywhere, torch.tensor(wanted), rtol=1e-4, atol=1e-5)
    assert not found.anywhere[1].any()  # its one token is position 0


def test_another_width_or_layer_is_refused():
    model = FrozenModel(tiny_network("llama"), golden_tokenizer(), "tiny")
    ready = conversations(model.tokenizer)
    latents = torch.zeros(len(ready), 1, dtype=torch.int64)
    with pytest.raises(DataError, match="width 12; tiny has d_model 32"):
        maximum_activations(model, encoder_of(tiny_sae("standard", HOOK), [0]), ready, latents)
    deep = tiny_sae("standard", "blocks.3.hook_resid_post", d_in=D_MODEL)
    with pytest.raises(DataError, match="layer 3; tiny has layers 0 to 2"):
        maximum_activations(model, encoder_of(deep, [0]), ready, latents)


def test_no_conversations():
    model = FrozenModel(tiny_network("llama"), golden_tokenizer(), "tiny")
    encoder = encoder_of(tiny_sae("standard", HOOK, d_in=D_MODEL), [0])
    found = maximum_activations(model, encoder, [], torch.empty(0, 3, dtype=torch.int64))
    assert found.anywhere.shape == found.content.shape == (0, 3)
