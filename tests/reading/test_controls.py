"""Random directions in the place of a reading's states."""

from __future__ import annotations

import json

import pytest
import torch

from selfie_adapters.adapters import load_adapter
from selfie_adapters.commands.read import read
from selfie_adapters.dataset.controls import random_vectors
from selfie_adapters.errors import DataError
from selfie_adapters.labelling import Labeller
from selfie_adapters.model import capture, load_model
from selfie_adapters.reading.controls import RandomControl, control_sentences, random_control
from selfie_adapters.reading.plan import PromptToken, ReadingPlan, plan_reading
from selfie_adapters.reading.read import Cell, Reading


@pytest.fixture
def run(golden_dir, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")

    def run(**options):
        settings = {
            "adapter": str(golden_dir / "adapters/scalar_affine_norm.safetensors"),
            "model": str(golden_dir / "model"),
            "chat": "none",
            "dtype": "float32",
            "max_new_tokens": 6,
            **options,
        }
        read("a small owl", out=str(tmp_path / "out"), **settings)
        content = json.loads((tmp_path / "out/reading.json").read_text(encoding="utf-8"))
        return content, " ".join(capsys.readouterr().out.split())

    return run


def test_the_directions_have_the_norms_of_cells_spread_over_the_reading(golden_dir):
    model = load_model(golden_dir / "model", "float32")
    adapter = load_adapter(golden_dir / "adapters/scalar_affine_norm.safetensors")
    labeller = Labeller(model, adapter)
    plan = plan_reading(model, "a small owl", chat="none")  # 11 tokens, 3 layers
    assert plan.n_cells == 33
    ids = torch.tensor([[token.id for token in plan.tokens]])
    states = capture(model, ids, plan.layers)[0]  # [layers, tokens, d_model]
    picked = [states[row, column] for column in range(11) for row in range(3)][::2][:16]
    expected = labeller.label(random_vectors(torch.stack(picked)), max_new_tokens=6)
    found = random_control(labeller, plan, max_new_tokens=6)
    assert found.gains == tuple(round(label.gain, 4) for (label,) in expected)
    assert found.shown == 16  # nothing is withheld without a calibration


def test_the_command_ends_with_what_they_mean_and_keeps_them(run, tmp_path):
    content, shown = run()
    assert len(content["random"]["gains"]) == 16
    mean = sum(content["random"]["gains"]) / 16
    assert f"random directions {mean:.2f}, a difference of" in shown
    assert "(33 and 16, 95 % interval)" in shown
    again, repeated = run()
    assert again == content
    assert f"random directions {mean:.2f}" in repeated


def test_a_finished_reading_of_an_earlier_version_has_none(run, tmp_path):
    content, _ = run()
    del content["random"]
    file = tmp_path / "out/reading.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    again, shown = run()
    assert "random" not in again
    assert "random directions" not in shown


@pytest.mark.parametrize("wrong", [7, {"gains": ["x"], "shown": 0}, {"gains": [1e999], "shown": 0}])
def test_a_damaged_control_is_named(run, tmp_path, wrong):
    content, _ = run()
    content["random"] = wrong
    file = tmp_path / "out/reading.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(DataError, match=r"reading\.json"):
        run()


def test_sentences_count_what_is_shown_only_where_something_can_be_withheld():
    plan = ReadingPlan("ab", "none", (PromptToken(0, 0, "a", False),), (0, 1, 2, 3), (0,))

    def cell(layer, gain, withheld=None):
        return Cell(layer, 0, "x", "x", -1.0, 1, True, gain, None, withheld)

    control = RandomControl((1.0, 1.1, 0.9, 1.0), 1)
    loud = Reading(plan, tuple(cell(i, 3 + i / 10) for i in range(4)), control)
    (sentence,) = control_sentences(loud)
    assert sentence.startswith("Cells gain 3.15 nats per token, random directions 1.00")
    assert sentence.endswith("(4 each, 95 % interval): the labels depend on their vectors.")
    quiet = Reading(plan, tuple(cell(i, 1, "no concept" if i else None) for i in range(4)), control)
    first, second = control_sentences(quiet)
    assert first.endswith("these labels say nothing.")
    assert second == "Labels shown: 1 of 4 cells, 1 of 4 random directions."
    assert control_sentences(Reading(plan, quiet.cells)) == []
