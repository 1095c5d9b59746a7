from __future__ import annotations

import pytest
import torch

from selfie_adapters.errors import ModelError
from selfie_adapters.model import FrozenModel, attention
from selfie_adapters.model.attention import FAMILIES, install, laid_out, no_mask
from selfie_adapters.model.library import cache_of, forward
from selfie_adapters.model.packing import Packing
from tiny import golden_tokenizer, tiny_network

KERNELS = [(f, k) for f in FAMILIES for k in ("eager", "sdpa") if (f, k) != ("gemma2", "sdpa")]


@pytest.mark.parametrize(("family", "kernel"), KERNELS)
def test_logits_are_those_of_the_librarys_attention(family, kernel, monkeypatch):
    network = tiny_network(family)
    network.set_attn_implementation(kernel)
    ids = torch.randint(0, 256, (3, 24), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, :5] = 0  # padding on the left
    calls = []

    def written() -> list[torch.Tensor]:
        """A prompt, two tokens more over its cache, and one more."""
        found, cache = [], None
        for start, end in ((0, 21), (21, 23), (23, 24)):
            out = forward(
                network,
                input_ids=ids[:, start:end],
                attention_mask=mask[:, :end],
                cache=cache,
                use_cache=True,
            )
            cache = cache_of(out)
            found.append(out.logits[mask[:, start:end].bool()])
        return found

    with torch.no_grad():
        expected = written()
        right = attention._grouped
        monkeypatch.setattr(attention, "_grouped", lambda *x: (calls.append(1), right(*x))[1])
        install(network)
        found = written()
    assert len(calls) == 2 * 3  # every layer, for the tokens after the prompt
    assert torch.equal(found[0], expected[0])
    for mine, theirs in zip(found[1:], expected[1:], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


def test_a_few_tokens_without_padding_see_what_is_before_them():
    """The library's fused kernel is then given no mask at all."""
    network = tiny_network("llama")
    network.set_attn_implementation("sdpa")
    install(network)
    ids = torch.randint(0, 256, (2, 12), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = network(ids).logits
        cache = cache_of(network(ids[:, :8], use_cache=True))
        found = forward(network, input_ids=ids[:, 8:], cache=cache, use_cache=True).logits
    torch.testing.assert_close(found, expected[:, 8:], rtol=1e-4, atol=1e-4)


def test_other_networks_stay_as_they_are():
    network = tiny_network("gpt_neox")
    before = network.config._attn_implementation
    assert FrozenModel(network, golden_tokenizer(), "tiny").network is network
    assert network.config._attn_implementation == before


def test_a_pass_that_leaves_its_layout_is_an_error():
    network = tiny_network("llama")
    install(network)
    device, dtype = torch.device("cpu"), torch.float32
    ids, positions = torch.arange(6).view(1, 6), torch.tensor([[0, 1, 2, 3, 0, 1]])
    inputs = {"input_ids": ids, "position_ids": positions, "use_cache": False}
    inputs["attention_mask"] = no_mask(device, dtype)
    with torch.no_grad():
        with laid_out(Packing(torch.tensor([4, 2]), None, device, dtype)):
            packed = network(**inputs).logits
        torch.testing.assert_close(packed[:, :4], network(ids[:, :4]).logits)
        torch.testing.assert_close(packed[:, 4:], network(ids[:, 4:]).logits)
        with pytest.raises(ModelError, match="layout"):
            network(**inputs)
