"""Which adapters are of one recipe."""

from __future__ import annotations

from dataclasses import replace

import pytest

from selfie_adapters.adapters import create_adapter
from selfie_adapters.adapters.binding import Binding
from selfie_adapters.errors import ConfigError
from selfie_adapters.evaluation.recipes import (
    over_members,
    recipes,
    refuse_copies,
    subjects,
    subjects_of,
)
from selfie_adapters.evaluation.tables import shown


def adapter(**config):
    made = create_adapter("scale_only", 4)
    made.record = replace(made.record, config=config)
    return made


def test_seeds_alone_may_differ():
    found = recipes(
        {
            "a_0": adapter(seed=0, training={"max_steps": 3, "checkpoint_dir": "x"}),
            "a_1": adapter(seed=1, training={"max_steps": 3, "checkpoint_dir": "y"}),
            "longer": adapter(seed=2, training={"max_steps": 9}),
            "no config": adapter(),
        }
    )
    assert found == {"a": ["a_0", "a_1"]}


def test_one_seed_twice_is_no_recipe_and_names_that_share_nothing_are_joined():
    assert recipes({"x": adapter(seed=0), "y": adapter(seed=0)}) == {}
    assert recipes({"x": adapter(seed=1), "y": adapter(seed=0)}) == {"y + x": ["y", "x"]}


def test_adapters_of_a_recipe_are_reported_together_where_the_first_is():
    known = [
        {"recipe": "a", "adapters": ["a-0", "a-1"]},
        {"recipe": "gone", "adapters": ["g", "h"]},
    ]
    found = subjects(["x", "a-1", "g", "a-0", "x"], known)
    assert [one.title for one in found] == ["x", "a, 2 seeds", "g"]
    assert found[1].adapters == ("a-0", "a-1")


def test_means_over_seeds_come_with_the_lowest_and_the_highest():
    low, high = ({"mean": mean, "low": mean - 1, "high": mean + 1} for mean in (2.0, 3.0))
    assert over_members([low]) == low
    assert over_members([low, low]) == low  # what all share keeps its interval
    assert over_members([high, low]) == {
        "mean": 2.5,
        "low": None,
        "high": None,
        "lowest": 2.0,
        "highest": 3.0,
    }
    over = {"mean": 2.5, "low": 0.0, "high": 5.0}
    assert over_members([high, low], over) == {**over, "lowest": 2.0, "highest": 3.0}
    assert over_members([low, None]) is None
    assert shown(over_members([high, low], over), 1) == "2.5 [0.0, 5.0] (2.0–3.0)"
    assert shown(over_members([high, low]), 1) == "2.5 (2.0–3.0)"


def test_seeds_of_other_data_or_of_another_size_are_no_recipe():
    def bound(layer, seed, kind="scale_only", dim=4):
        made = create_adapter(kind, dim)
        made.record = replace(made.record, config={"seed": seed, "labels_file": "nouns.json"})
        made.binding = Binding(
            model="m",
            d_model=dim,
            template="t",
            placeholder="_",
            placeholder_id=1,
            sites=(3,),
            layer=layer,
            mean_embedding_norm=1.0,
        )
        return made

    alike = {"a-0": bound(12, 0), "a-1": bound(12, 1)}
    assert recipes(alike) == {"a": ["a-0", "a-1"]}
    # the same path held vectors of another block when the second seed was trained
    assert recipes({"a-0": bound(12, 0), "a-1": bound(24, 1)}) == {}
    assert recipes({"a-0": bound(12, 0), "a-1": bound(12, 1, "scalar_affine")}) == {}
    assert recipes({"a-0": bound(12, 0), "a-1": bound(12, 1, dim=8)}) == {}
    assert recipes({**alike, "other": bound(24, 2)}) == {"a": ["a-0", "a-1"]}


def test_a_recipe_is_not_called_like_an_adapter():
    found = recipes({"a-0": adapter(seed=0), "a-1": adapter(seed=1), "a": adapter(seed=0, x=1)})
    assert found == {"a-0 + a-1": ["a-0", "a-1"]}
    names = [one.name for one in subjects_of({"a": adapter()}, ["labels"])]
    assert names == ["a", "labels"]


def test_one_adapter_under_two_names_is_refused():
    refuse_copies({"a": "1", "b": "2"})
    with pytest.raises(ConfigError, match="adapters a and c are the same file"):
        refuse_copies({"a": "1", "b": "2", "c": "1"})
