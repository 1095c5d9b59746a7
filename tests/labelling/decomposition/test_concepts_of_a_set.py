"""Concepts read with an adapter set: a vector and its rest are labelled by its place's adapter."""

from __future__ import annotations

from typing import Any

import torch

from selfie_adapters.adapters import create_adapter, load_adapter
from selfie_adapters.adapters.specialists import specialist_file
from selfie_adapters.config.shared import Sampling
from selfie_adapters.labelling import Labeller
from selfie_adapters.labelling.choosing import Judgement
from selfie_adapters.labelling.decomposition.concepts import Decomposer
from selfie_adapters.model import load_model

HERE, ELSEWHERE = (1, "name"), (0, "name")


class FirstAxis:
    """Every label stands for the first axis."""

    def spans(self, labels, place):
        assert place in (HERE, ELSEWHERE)
        return [torch.eye(48)[:1] for _ in labels]


def test_a_rest_is_labelled_by_the_specialist_of_its_place(golden_dir, tmp_path):
    model = load_model(golden_dir / "model", dtype="float32")
    file = tmp_path / "set.safetensors"
    create_adapter("scalar_affine", 48, init_scale=0.1).save(file)
    create_adapter("scalar_affine", 48, init_scale=8.0).save(specialist_file(file, *HERE))
    sampling = Sampling(max_new_tokens=8)

    def by(path, vector):
        labeller = Labeller(model, load_adapter(path))
        return labeller.label(vector[None], sampling=sampling)[0][0].text

    vector = torch.randn(48, generator=torch.Generator().manual_seed(0))
    vector[0] = 6.0  # the first axis explains more than a quarter
    rest = vector.clone()
    rest[0] = 0.0
    alone = tmp_path / "alone.safetensors"
    create_adapter("scalar_affine", 48, init_scale=0.1).save(alone)
    expected = {
        ELSEWHERE: [by(alone, one) for one in (vector, rest)],
        HERE: [by(specialist_file(file, *HERE), one) for one in (vector, rest)],
    }
    assert all(a != b for a, b in zip(*expected.values(), strict=True))

    stub: Any = FirstAxis()
    labeller = Labeller(model, load_adapter(file))
    places = [HERE, ELSEWHERE, HERE]
    found = Decomposer(labeller, stub, 2, sampling, samples=0).concepts(
        torch.stack([vector] * 3), lambda *_: Judgement(0.9, None), [(i,) for i in range(3)], places
    )
    assert [[one.label.text for one in its] for its in found] == [expected[one] for one in places]
