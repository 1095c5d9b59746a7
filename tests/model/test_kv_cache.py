import pytest
import torch

from selfie_adapters.model.kv_cache import give_room
from selfie_adapters.model.library import cache_of, forward
from tiny import tiny_network


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt_neox"])
def test_logits_are_those_of_a_cache_that_is_copied(family):
    """Over two enlargements of 64 tokens, a row leaving in between."""
    network = tiny_network(family)
    ids = torch.randint(0, 256, (3, 160), generator=torch.Generator().manual_seed(0))

    def written(room: bool) -> list[torch.Tensor]:
        found, rows = [], ids
        cache = cache_of(network(rows[:, :5], use_cache=True))
        if room:
            give_room(cache, 64)
        for place in range(5, 160):
            if place == 90:
                cache.batch_select_indices(torch.tensor([0, 2]))
                rows = rows[[0, 2]]
            out = forward(
                network, input_ids=rows[:, place : place + 1], cache=cache, use_cache=True
            )
            found.append(out.logits)
        return found

    with torch.no_grad():
        for plain, grown in zip(written(False), written(True), strict=True):
            torch.testing.assert_close(grown, plain, rtol=1e-4, atol=1e-4)


def test_a_full_cache_layer_is_not_copied_for_each_token():
    network = tiny_network("llama")
    with torch.no_grad():
        cache = cache_of(network(torch.zeros(1, 4, dtype=torch.int64), use_cache=True))
        give_room(cache, 64)
        places = set()
        for _ in range(60):
            token = torch.zeros(1, 1, dtype=torch.int64)
            forward(network, input_ids=token, cache=cache, use_cache=True)
            places.add(cache.layers[0].keys.data_ptr())
    assert len(places) == 1
    assert cache.get_seq_length() == 64


@pytest.mark.parametrize("change", ["batch_repeat_interleave", "reset", "crop"])
def test_room_is_not_used_for_keys_that_it_does_not_hold(change):
    network = tiny_network("llama")
    ids = torch.randint(0, 256, (1, 12), generator=torch.Generator().manual_seed(0))

    def after(room: bool) -> torch.Tensor:
        cache = cache_of(network(ids[:, :5], use_cache=True))
        if room:
            give_room(cache, 64)
        forward(network, input_ids=ids[:, 5:8], cache=cache, use_cache=True)
        rows = 1
        if change == "batch_repeat_interleave":
            rows = 2
            cache.batch_repeat_interleave(rows)
        elif change == "crop":
            cache.crop(-2)
        else:
            cache.reset()
        rest = ids[:, 8:].expand(rows, -1)
        return forward(network, input_ids=rest, cache=cache, use_cache=True).logits

    with torch.no_grad():
        torch.testing.assert_close(after(True), after(False), rtol=1e-4, atol=1e-4)
