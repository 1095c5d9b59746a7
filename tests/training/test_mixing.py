from __future__ import annotations

from collections import Counter

import pytest
import torch

from selfie_adapters.errors import DataError
from selfie_adapters.training.epochs import epoch_of, make_groups, matching


def counts_of_epoch(case, seed=0):
    ids = list(case["pool"])
    section = torch.cat([torch.full((n,), k) for k, n in enumerate(case["pool"].values())])
    ratios = [
        ([r["datasets"]] if isinstance(r["datasets"], str) else r["datasets"], r["ratio"])
        for r in case["ratios"]
    ]
    chosen = epoch_of(make_groups(ids, section, ratios), torch.Generator().manual_seed(seed))
    assert len(set(chosen.tolist())) == chosen.numel(), "no example twice in an epoch"
    return Counter(ids[section[i]] for i in chosen.tolist())


@pytest.mark.parametrize("which", [0, 1, 2])
def test_golden_epochs_have_the_published_group_sizes(golden, which):
    case = golden["mixing"][which]
    ours, published = counts_of_epoch(case), case["counts"]
    for entry in case["ratios"]:
        patterns = entry["datasets"] if isinstance(entry["datasets"], list) else [entry["datasets"]]
        members = {one for pattern in patterns for one in matching(pattern, list(case["pool"]))}
        size = sum(published.get(one, 0) for one in members)
        assert sum(ours[one] for one in members) == size
        whole = sum(case["pool"][one] for one in members) == size
        if whole or len(members) == 1:  # nothing is left to chance
            assert all(ours[one] == published[one] for one in members)


def test_larger_groups_are_drawn_anew_each_epoch(golden):
    case = golden["mixing"][2]  # 80 of 320: 200 and 120
    draws = [counts_of_epoch(case, seed)["wiki@l19"] for seed in range(30)]
    assert len(set(draws)) > 1
    assert 48 < sum(draws) / len(draws) < 52  # expected 80 · 200 / 320 = 50


def test_a_name_means_all_its_layers_and_an_id_means_one():
    ids = ["scope@l10", "scope@l11", "scope-two@l10"]
    assert matching("scope", ids) == ["scope@l10", "scope@l11"]
    assert matching("scope@l11", ids) == ["scope@l11"]


def test_a_pattern_that_matches_nothing_offers_the_nearest():
    with pytest.raises(DataError, match=r'"scpoe@l10" matches nothing. Did you mean "scope@l10"'):
        matching("scpoe@l10", ["scope@l10", "wiki@l19"])


def test_a_group_without_examples_is_refused():
    with pytest.raises(DataError, match="group b has no examples"):
        make_groups(["a@l1", "b@l1"], torch.tensor([0, 0]), [(["a"], 1.0), (["b"], 1.0)])
