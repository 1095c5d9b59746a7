"""A cache is used where it gives what a pass without one does, also in the cases that are rare."""

from __future__ import annotations

import pytest
import torch

from selfie_adapters.model import FrozenModel
from selfie_adapters.model.cache_use import CacheUse, cache_use
from tiny import golden_tokenizer, tiny_network


def use_of(network):
    return cache_use(FrozenModel(network, golden_tokenizer(), "tiny"))


@pytest.mark.parametrize("family", ["llama", "mistral", "gemma3_text", "gpt_neo"])
def test_windows_that_the_cache_shares_with_the_attention_are_cached(family):
    assert use_of(tiny_network(family)).branches


def test_a_cache_that_forgets_what_the_model_sees_is_not_used():
    """Moshi's attention has no window without a cache, its cache has one."""
    assert use_of(tiny_network("moshi")) == CacheUse(branches=False, steps=False)
    assert use_of(tiny_network("moshi", sliding_window=3000)).steps


def test_a_model_that_gives_padding_no_position_is_not_cached():
    """Its cached pass counts the padding before it (Kosmos-2.5)."""
    network = tiny_network("llama")
    forward, pad = network.model.forward, network.config.pad_token_id

    def counted(input_ids=None, **options):
        caches = (options.get(name) for name in ("cache", "past_key_values"))
        read = sum(cache.get_seq_length() for cache in caches if cache is not None)
        options["position_ids"] = (input_ids != pad).cumsum(dim=1) - 1 + read
        return forward(input_ids=input_ids, **options)

    assert pad == 259
    assert use_of(network).branches
    other = tiny_network("llama")
    forward = other.model.forward
    other.model.forward = counted
    assert use_of(other) == CacheUse(branches=False, steps=False)
    with torch.no_grad():
        assert other(input_ids=torch.tensor([[1, 2]]), use_cache=False).logits.isfinite().all()
