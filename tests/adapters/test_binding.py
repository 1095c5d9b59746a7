"""Which differences between an adapter's binding and the live model are refused."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from selfie_adapters.adapters import Binding
from selfie_adapters.errors import BindingError

BINDING = Binding(
    model="org/model",
    revision="aaaa",
    d_model=48,
    template='The meaning of "<x>" is "',
    placeholder="<x>",
    placeholder_id=260,
    sites=(11, 22),
    layer=19,
    mean_embedding_norm=1.5,
    versions={"torch": "2.8.0"},
    fingerprint=(0.1, -2.0, 0.5),
)


def live(**changes) -> Binding:
    return BINDING.model_copy(update=changes)


def test_the_same_model_and_prompt_pass():
    BINDING.check(live())


@pytest.mark.parametrize(
    "changes",
    [
        {"versions": {"torch": "2.13.0", "transformers": "5.4"}},
        {"layer": None},
        {"revision": None},
        {"mean_embedding_norm": 1.5 * 1.009},
        {"fingerprint": (0.1 + 0.09, -2.0, 0.5)},  # 0.09 is 4.5 % of the largest value, 2.0
        {"model": "/data/snapshots/model", "revision": None},
        {"model": "mirror/model", "revision": "bbbb"},  # revisions of different repositories
        {"model": "/data/model", "fingerprint": (0.1, -2.05, 0.5), "mean_embedding_norm": 1.51},
    ],
)
def test_differences_that_do_not_change_the_model_pass(changes):
    BINDING.check(live(**changes))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"revision": "bbbb"}, "revision of org/model: .*'aaaa'.*'bbbb'"),
        ({"d_model": 64}, "d_model: .*48.*64"),
        ({"template": "other"}, "prompt template: .*The meaning.*'other'"),
        ({"placeholder_id": 4}, "placeholder token id: .*260.*4"),
        ({"sites": (11, 23)}, r"placeholder positions: .*\(11, 22\).*\(11, 23\)"),
        ({"mean_embedding_norm": 1.52}, r"mean embedding norm: .*1\.5,.*1\.52.*1%"),
        ({"fingerprint": (0.1, -2.0, 0.61)}, r"fingerprint, value 2: .*0\.5,.*0\.61.*5\.5%"),
        ({"fingerprint": (0.1, -2.0)}, "number of values in the forward fingerprint: .*3.*2"),
    ],
)
def test_each_difference_alone_is_refused_with_both_sides(changes, says):
    with pytest.raises(BindingError, match=says) as refused:
        BINDING.check(live(**changes))
    assert str(refused.value).count("\n  - ") == 1
    assert "pass check=False (--ignore-binding on the command line)" in str(refused.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"fingerprint": ()},  # nothing to prove that the weights are the same
        {"fingerprint": (0.1, 2.0, 0.5)},
        {"mean_embedding_norm": 2.0},
    ],
)
def test_another_name_is_refused_unless_the_weights_are_shown_to_agree(changes):
    with pytest.raises(BindingError, match=r"model: .*'org/model'.*'org/other'"):
        BINDING.check(live(model="org/other", **changes))


def test_all_differences_are_listed_at_once():
    other = live(model="b", d_model=64, sites=(1,), mean_embedding_norm=3.0, fingerprint=(9.0,) * 3)
    assert len(BINDING.differences(other)) == 5
    with pytest.raises(BindingError) as refused:
        BINDING.check(other)
    assert str(refused.value).count("\n  - ") == 5


def test_zero_norms_and_fingerprints_compare():
    still = live(mean_embedding_norm=0.0, fingerprint=(0.0, 0.0))
    still.check(still.model_copy())


def test_check_is_the_same_from_both_sides():
    other = live(mean_embedding_norm=1.514, fingerprint=(0.1, -2.1, 0.5))
    assert BINDING.differences(other) == other.differences(BINDING) == []


def test_binding_is_frozen_and_refuses_unknown_keys_and_nan():
    with pytest.raises(ValidationError):
        BINDING.d_model = 3
    with pytest.raises(ValidationError, match="colour"):
        Binding.model_validate({**BINDING.model_dump(), "colour": "red"})
    with pytest.raises(ValidationError, match="finite"):
        Binding.model_validate({**BINDING.model_dump(), "fingerprint": [float("nan")]})


def test_binding_survives_json():
    assert Binding.model_validate_json(BINDING.model_dump_json()) == BINDING
