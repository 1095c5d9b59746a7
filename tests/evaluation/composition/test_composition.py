"""Mixtures of two concepts on the golden model, and what counts as named."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from naming_data import write_naming_data
from selfie_adapters.adapters import load_adapter
from selfie_adapters.config.evaluation.composition import CompositionSettings
from selfie_adapters.errors import ConfigError, DataError
from selfie_adapters.evaluation.composition.protocol import (
    CONCEPTS,
    CompositionProtocol,
    Said,
    named,
    separation,
)
from selfie_adapters.sources.topics.topic import Topic

OWL, BEE = Topic(("owl",), name="owl"), Topic(("bee",), name="bee")


def said(text, shown=True, gain=1.0, explained=0.5):
    return Said(text, shown, gain, explained)


def test_a_concept_is_named_by_the_first_label_or_by_a_further_one_that_is_shown():
    labels = [
        [said("owl", shown=False), said("bee")],
        [said("owls"), said("bee", shown=False)],
        [said("tin"), said("lamp")],
    ]
    found = named(labels, [OWL] * 3, [BEE] * 3, CONCEPTS)
    assert found["first"]["mean"] == pytest.approx(2 / 3)
    assert found["second"]["mean"] == pytest.approx(1 / 3)
    assert found["both"]["mean"] == pytest.approx(1 / 3)
    assert found["second"]["low"] > 0


def test_the_floor_is_another_pairs_label():
    labels = [[said("bee")], [said("tin")]]
    found = named(labels, [OWL, OWL], [OWL, BEE], CONCEPTS)
    assert found["second"]["mean"] == 0
    assert found["floor"]["mean"] == pytest.approx(1 / 2)


def test_explained_variance_and_gain_are_compared_by_their_areas():
    labels = [
        [said("owl", explained=0.9, gain=1)],
        [said("bee", explained=0.2, gain=2)],
        [said("owl", explained=0.6, gain=3)],
    ]
    found = separation(labels, [OWL] * 3)
    assert (found["auroc_explained"], found["auroc_gain"]) == (1.0, 0.5)
    assert found["explained_wrong"] == pytest.approx(0.2)
    assert separation(labels[:1], [OWL])["auroc_gain"] is None


@pytest.fixture
def settings(golden_dir, tmp_path):
    adapter = load_adapter(golden_dir / "adapters/scalar_affine_norm.safetensors")
    adapter.save(tmp_path / "a.safetensors")
    means = {"layer_2_at_name": torch.full((48,), 0.01)}
    save_file(means, tmp_path / "a.mean.safetensors")
    values = {
        "source": write_naming_data(tmp_path),
        "model": str(golden_dir / "model"),
        "dtype": "float32",
        "adapter": str(tmp_path / "a.safetensors"),
        "layer": 2,
        "pairs": 3,
        "shares": (0.75,),
        "max_new_tokens": 3,
        "batch_size": 2,
    }
    return lambda **options: CompositionSettings(**{**values, **options})


def test_a_run_resumes_with_the_same_results(settings, tmp_path):
    path = CompositionProtocol.run(settings(), tmp_path / "out")
    results = json.loads(path.read_text())
    assert [row["condition"] for row in results["mixtures"]] == ["plain", "concepts", "removed"]
    assert results["pairs"] == results["pure"]["false_second"]["n"] == 3
    assert list(CompositionProtocol.report(results))
    rows = tmp_path / "out" / "rows.jsonl"
    rows.write_text("".join(rows.read_text().splitlines(keepends=True)[:3]))
    CompositionProtocol.run(settings(), tmp_path / "out")
    assert json.loads(path.read_text()) == results


def test_what_the_file_lacks_is_named(settings, tmp_path):
    with pytest.raises(ConfigError, match=r"no vectors of block 1 at position name; it has 0 at"):
        CompositionProtocol.run(settings(layer=1), tmp_path / "out")
    with pytest.raises(DataError, match="6 concepts .* 4 pairs need 8"):
        CompositionProtocol.run(settings(pairs=4), tmp_path / "out")
