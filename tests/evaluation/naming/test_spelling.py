"""Distractors with the first token of the right name. The golden tokenizer has a token per byte."""

from __future__ import annotations

import pytest

from selfie_adapters.errors import DataError
from selfie_adapters.evaluation.naming.retrieval import SameStart, same_start_distractors
from tiny import golden_tokenizer

NAMES = ["owl", "oil", "oak", "Owls", "ox", "bee", "bat", "oil", "ant"]


@pytest.fixture(scope="module")
def tokenizer():
    return golden_tokenizer()


def test_distractors_share_the_first_token_and_are_other_words(tokenizer):
    (owl, bee, cat) = same_start_distractors(tokenizer, ["owl", "bee", "cat"], NAMES, 2)
    assert len(set(owl.names)) == 2
    assert set(owl.names) < {"oil", "oak", "ox"}  # "Owls" begins with another byte, and is the owl
    assert owl.missing == 0
    assert bee == SameStart(("bat",), 1)
    assert cat == SameStart((), 2)


def test_spelling_variants_of_the_query_are_no_distractors(tokenizer):
    names = ["owls", "owl", "OWL", "shoe store", "shoe-store", "shoestores", "shed"]
    assert same_start_distractors(tokenizer, ["owl"], names, 3) == [SameStart((), 3)]
    assert same_start_distractors(tokenizer, ["Shoe-Store"], names, 1) == [SameStart((), 1)]
    assert same_start_distractors(tokenizer, ["shoe store"], names, 1) == [SameStart(("shed",), 0)]


def test_a_sample_depends_on_seed_and_query_alone(tokenizer):
    names = [f"o{i}x" for i in range(100)]
    every = same_start_distractors(tokenizer, ["owl", "oil"], names, 5)
    assert every[0] != every[1]
    assert same_start_distractors(tokenizer, ["oil"], names[::-1], 5) == every[1:]
    assert same_start_distractors(tokenizer, ["oil"], names, 5, seed=1) != every[1:]
    seen = {
        name
        for seed in range(60)
        for name in same_start_distractors(tokenizer, ["oil"], names, 5, seed)[0].names
    }
    assert len(seen) > 90  # nothing is always left out


def test_what_is_refused_and_nothing_to_do(tokenizer):
    assert same_start_distractors(tokenizer, [], NAMES, 2) == []
    assert same_start_distractors(tokenizer, ["owl"], [], 2) == [SameStart((), 2)]
    with pytest.raises(DataError, match="k is 0"):
        same_start_distractors(tokenizer, ["owl"], NAMES, 0)
    with pytest.raises(DataError, match="label 0 is empty"):
        same_start_distractors(tokenizer, [""], NAMES, 2)
