"""A model that cannot take part in training is refused before the first step."""

from __future__ import annotations

import pytest

from selfie_adapters.errors import ModelError
from selfie_adapters.model import FrozenModel
from selfie_adapters.training import train
from tiny import golden_tokenizer, tiny_network
from toy_run import config_for


@pytest.mark.parametrize("family", ["bert", "xlnet"])
def test_one_that_looks_at_later_tokens(family, data):
    model = FrozenModel(tiny_network(family), golden_tokenizer(), family)
    with pytest.raises(ModelError, match=f"{family} .* is no causal language model"):
        train(config_for(data), model)
    assert not (data.parent / "runs").exists()


def test_one_that_cannot_be_run_on_text_alone(data, model, monkeypatch):
    def forward(*_arguments, **_options):
        raise ValueError("pixel_values cannot be None.")

    monkeypatch.setattr(model.network, "forward", forward)
    with pytest.raises(ModelError, match=r"tiny .* cannot be run: pixel_values cannot be None"):
        train(config_for(data), model)
    assert not (data.parent / "runs").exists()
