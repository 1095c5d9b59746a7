from __future__ import annotations

import math

import pytest
import torch

from selfie_adapters.adapters import create_adapter
from selfie_adapters.evaluation import compare_with_controls
from selfie_adapters.model import FrozenModel, SoftPrompt
from selfie_adapters.training import label_losses
from tiny import golden_tokenizer, tiny_network

NAMES = ["ant", "bee", "cat", "dog", "elk", "fox", "gnu", "hen"]


@pytest.fixture(scope="module")
def setting():
    model = FrozenModel(tiny_network("llama"), golden_tokenizer(), "tiny")
    prompt = SoftPrompt.for_tokenizer(model.tokenizer)
    adapter = create_adapter("scalar_affine", 32, init_scale=4.0)
    with torch.no_grad():
        adapter.bias.copy_(torch.linspace(-1, 1, 32))
    vectors = torch.randn(8, 32, generator=torch.Generator().manual_seed(0))
    results = compare_with_controls(
        model, prompt.bind(model.tokenizer), adapter, vectors, NAMES, 3, 2
    )
    return model, prompt, adapter, vectors, {r.condition: r for r in results}


def test_all_controls_stand_beside_the_trained_adapter(setting):
    *_, results = setting
    assert list(results) == ["trained", "zero vector", "shuffled", "random", "untrained"]
    for result in results.values():
        assert result.loss.n == 8
        assert result.gain_at_1.n == 6  # two groups of three


def test_losses_are_the_label_losses_of_the_names(setting):
    model, prompt, adapter, vectors, results = setting
    with torch.no_grad():
        trained = label_losses(model, prompt, adapter, vectors, NAMES).mean()
        zero = label_losses(model, prompt, adapter, torch.zeros_like(vectors), NAMES).mean()
    assert results["trained"].loss.mean == pytest.approx(float(trained), rel=1e-4)
    assert results["zero vector"].loss.mean == pytest.approx(float(zero), rel=1e-4)


def test_the_zero_vector_finds_a_name_by_gain_no_better_than_chance(setting):
    *_, results = setting
    assert results["zero vector"].gain_at_1.mean == pytest.approx(1 / 3)
    # by likelihood every vector picks the same name: one of three is right
    assert results["zero vector"].likelihood_at_1.mean == pytest.approx(1 / 3)


def test_recall_by_gain_is_what_losses_alone_give(setting):
    model, prompt, adapter, vectors, results = setting
    hits = []
    with torch.no_grad():
        zero = label_losses(model, prompt, adapter, torch.zeros(8, 32), NAMES)
        for group in (range(3), range(3, 6)):
            for i in group:
                rows = vectors[[i] * 3]
                names = [NAMES[j] for j in group]
                gain = zero[list(group)] - label_losses(model, prompt, adapter, rows, names)
                hits.append(int(gain.argmax()) == i - group.start)
    assert results["trained"].gain_at_1.mean == pytest.approx(sum(hits) / 6)


def test_a_control_is_beaten_only_in_both_measures(setting):
    from dataclasses import replace

    from selfie_adapters.evaluation import Interval

    *_, results = setting
    trained = replace(
        results["trained"], loss=Interval(1, 0.9, 1.1, 8), gain_at_1=Interval(0.9, 0.8, 1, 6)
    )
    worse = replace(trained, loss=Interval(2, 1.9, 2.1, 8), gain_at_1=Interval(0.3, 0.1, 0.5, 6))
    assert worse.beaten_by(trained)
    assert not replace(worse, loss=trained.loss).beaten_by(trained)
    assert not replace(worse, gain_at_1=trained.gain_at_1).beaten_by(trained)
    assert math.isfinite(results["random"].loss.mean)
