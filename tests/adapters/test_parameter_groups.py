"""Configuration, kinds of adapter and optimizer fit together for every kind, also for a new one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from selfie_adapters.adapters import KINDS, Adapter, create_adapter
from selfie_adapters.config import ADAPTER_KINDS, ProjectionSection, TrainingSection
from selfie_adapters.errors import AdapterError
from selfie_adapters.training.step import make_optimizer, set_rates

SETTINGS = TrainingSection(
    scale_learning_rate=0.1,
    direction_learning_rate=0.2,
    bias_learning_rate=0.3,
    weight_decay=0.5,
    warmup_steps=0,
    scheduler_type="constant",
)
# parameter → learning rate, weight decay, from the descriptions of the settings
EXPECTED = {
    "log_scale": (0.1, 0.0),
    "U": (0.2, 0.5),
    "V": (0.2, 0.5),
    "weight": (0.2, 0.5),
    "bias": (0.3, 0.5),
}


@pytest.fixture(autouse=True)
def same_kinds_afterwards():
    kinds, names = dict(KINDS), dict(ADAPTER_KINDS)
    yield
    for registry, before in ((KINDS, kinds), (ADAPTER_KINDS, names)):
        registry.clear()
        registry.update(before)


def test_the_configuration_knows_the_kinds_that_there_are():
    assert {name: cls.takes_rank for name, cls in KINDS.items()} == ADAPTER_KINDS


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_parameter_of_every_kind_is_trained_at_its_rate(kind):
    section = ProjectionSection(type=kind, low_rank_rank=2)
    adapter = create_adapter(
        section.type, 4, low_rank_rank=section.low_rank_rank if ADAPTER_KINDS[kind] else None
    )
    optimizer = make_optimizer(adapter, SETTINGS)
    set_rates(optimizer, SETTINGS, step=3, total=10)
    found = {
        id(parameter): (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    names = {name: found[id(parameter)] for name, parameter in adapter.named_parameters()}
    assert names == {name: EXPECTED[name] for name in names}
    assert len(found) == len(names)


def test_a_rate_that_is_not_set_is_the_learning_rate():
    optimizer = make_optimizer(create_adapter("full_rank", 3), TrainingSection(learning_rate=0.7))
    assert set_rates(optimizer, TrainingSection(warmup_steps=0), 0, 10) == {
        "direction": 0.7,
        "bias": 0.7,
    }


def test_a_parameter_without_a_group_is_an_error_that_names_it():
    class Gated(Adapter, kind="gated", groups={"bias": "bias"}):
        def _make_parameters(self) -> None:
            self.bias = nn.Parameter(torch.zeros(self.dim))
            self.gate = nn.Parameter(torch.zeros(self.dim))

        def _map(self, x):
            return self.gate * x + self.bias

    message = r'"gate" of the adapter kind "gated" is in no parameter group.*scale, direction, bias'
    with pytest.raises(AdapterError, match=message):
        create_adapter("gated", 4)


def test_a_parameter_that_is_added_later_has_no_group_either():
    adapter = create_adapter("scale_only", 4)
    adapter.late = nn.Linear(2, 2)
    with pytest.raises(AdapterError, match=r'"late\.(weight|bias)"'):
        make_optimizer(adapter, SETTINGS)


@pytest.mark.parametrize(
    ("groups", "says"),
    [
        ({"bias": "bias", "gate": "direction"}, '"gate", which is not a parameter.*bias'),
        ({"bias": "biass"}, 'unknown parameter group "biass". Did you mean "bias"'),
        ({}, '"bias" of the adapter kind "odd" is in no parameter group'),
    ],
)
def test_declarations_that_do_not_fit_the_parameters_are_refused(groups, says):
    class Odd(Adapter, kind="odd", groups=groups):
        def _make_parameters(self) -> None:
            self.bias = nn.Parameter(torch.zeros(self.dim))

        def _map(self, x):
            return x + self.bias

    with pytest.raises(AdapterError, match=says):
        create_adapter("odd", 4)


def test_one_name_is_one_class():
    with pytest.raises(AdapterError, match="two classes have the adapter kind .identity."):

        class Other(Adapter, kind="identity"):
            def _map(self, x):
                return x

    ADAPTER_KINDS["shift"] = False
    with pytest.raises(AdapterError, match="takes_rank is True in its class and False in"):

        class Shift(Adapter, kind="shift", takes_rank=True):
            def _map(self, x):
                return x

    assert "shift" not in KINDS


def test_an_unknown_kind_in_a_configuration_offers_the_nearest():
    with pytest.raises(ValueError, match=r'unknown kind of adapter. Did you mean "full_rank"\?'):
        ProjectionSection(type="fullrank")
