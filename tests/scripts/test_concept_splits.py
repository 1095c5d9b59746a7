"""Groups of concepts that share a word, and the splits they get."""

from __future__ import annotations

from collections import Counter

import pytest
from concept_splits import groups_of, read_irregular, splits_of


def test_groups_are_joined_through_others():
    keys = [{"a"}, {"b", "c"}, {"d"}, {"c", "a"}, set(), {"d"}]
    assert sorted(sorted(group) for group in groups_of(keys)) == [[0, 1, 3], [2, 5], [4]]


def test_irregular_plurals_may_have_several_singulars_and_lines(tmp_path):
    (tmp_path / "noun.exc").write_text("axes ax axis\nfeet foot\naxes axe\n")
    assert read_irregular(tmp_path / "noun.exc") == {
        "axes": ("ax", "axis", "axe"),
        "feet": ("foot",),
    }


@pytest.mark.parametrize("seed", range(5))
def test_a_tenth_each_and_no_group_is_divided(seed):
    letters = "bcdfghjklm"
    alone = [[f"x{seed}{one}{other}"] for one in letters for other in letters]
    pairs = [[f"{stem[0]}q{suffix}"] for stem in alone[:50] for suffix in ("", "s")]
    crowd = [[f"{one}{other} fellow", "chap"] for one in letters for other in letters[:6]]
    concepts = [*alone, *pairs, *crowd]  # 260
    splits = splits_of(concepts, {})
    assert splits == splits_of(concepts, {})
    assert Counter(splits) == {"train": 208, "val": 26, "test": 26}
    assert splits[100:200:2] == splits[101:200:2]  # plural and singular
    assert set(splits[200:]) == {"train"}  # a group of 60 is above the largest


def test_a_few_concepts_are_all_trained_on():
    assert splits_of([["owl"], ["tin"], ["soup"]], {}) == ["train"] * 3
