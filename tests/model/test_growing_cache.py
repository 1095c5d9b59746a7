import pytest
import torch

from selfie_adapters.model.growing_cache import give_room
from tiny import tiny_network


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt_neox"])
def test_logits_are_those_of_a_cache_that_is_copied(family):
    """Over two enlargements of 64 tokens, a row leaving in between."""
    network = tiny_network(family)
    ids = torch.randint(0, 256, (3, 160), generator=torch.Generator().manual_seed(0))

    def written(room: bool) -> list[torch.Tensor]:
        found, rows = [], ids
        cache = network(rows[:, :5], use_cache=True).past_key_values
        if room:
            give_room(cache)
        for place in range(5, 160):
            if place == 90:
                cache.batch_select_indices(torch.tensor([0, 2]))
                rows = rows[[0, 2]]
            out = network(rows[:, place : place + 1], past_key_values=cache, use_cache=True)
            found.append(out.logits)
        return found

    with torch.no_grad():
        for plain, grown in zip(written(False), written(True), strict=True):
            torch.testing.assert_close(grown, plain, rtol=1e-4, atol=1e-4)


def test_a_full_cache_layer_is_not_copied_for_each_token():
    network = tiny_network("llama")
    with torch.no_grad():
        cache = network(torch.zeros(1, 4, dtype=torch.int64), use_cache=True).past_key_values
        give_room(cache)
        places = set()
        for _ in range(60):
            network(torch.zeros(1, 1, dtype=torch.int64), past_key_values=cache, use_cache=True)
            places.add(cache.layers[0].keys.data_ptr())
    assert len(places) == 1
    assert cache.get_seq_length() == 64
