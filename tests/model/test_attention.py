import pytest
import torch

from selfie_adapters.model.attention import FAMILIES, _grouped, grouped_attention
from selfie_adapters.model.library import cache_of, forward
from tiny import tiny_network


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_plain_attention(family, monkeypatch):
    network = tiny_network(family)
    network.set_attn_implementation("eager")
    ids = torch.randint(0, 256, (3, 24), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, :5] = 0  # padding on the left
    calls = []

    def both():
        """A prompt, and two tokens more over its cache."""
        out = network(ids[:, :22], attention_mask=mask[:, :22], use_cache=True)
        more = forward(
            network, input_ids=ids[:, 22:], attention_mask=mask, cache=cache_of(out), use_cache=True
        )
        return torch.cat([out.logits, more.logits], 1)[mask.bool()]

    def counted(*args, **options):
        calls.append(1)
        return _grouped(*args, **options)

    from transformers import AttentionInterface

    AttentionInterface.register("selfie_grouped", counted)
    try:
        with torch.no_grad():
            plain = both()
            assert not calls
            with grouped_attention(network):
                grouped = both()
            assert len(calls) == 2 * 3  # every layer, both times
            torch.testing.assert_close(grouped, plain, rtol=1e-4, atol=1e-4)
            assert torch.equal(both(), plain)  # and plain again after it
    finally:
        AttentionInterface.register("selfie_grouped", _grouped)


def test_other_networks_stay_as_they_are():
    network = tiny_network("gpt_neox")
    before = network.config._attn_implementation
    with grouped_attention(network):
        assert network.config._attn_implementation == before
