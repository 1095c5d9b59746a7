"""Which adapters are of one recipe."""

from __future__ import annotations

from dataclasses import replace

from selfie_adapters.adapters import create_adapter
from selfie_adapters.evaluation.recipes import recipes


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
