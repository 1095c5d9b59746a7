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
from selfie_adapters.reading import controls
from selfie_adapters.reading.controls import RandomControl, control_sentence, random_control
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
    picked = [states[row, column] for column in range(11) for row in range(3)]
    picked = [picked[i * 33 // 32] for i in range(32)]  # all but the last
    expected = labeller.label(random_vectors(torch.stack(picked)), max_new_tokens=6)
    found = random_control(labeller, plan, max_new_tokens=6)
    assert found.gains == tuple(round(label.gain, 4) for (label,) in expected)
    assert found.shown == 32  # nothing is withheld without a calibration


def test_the_norms_are_those_of_the_model_that_is_read(golden_dir, monkeypatch):
    model = load_model(golden_dir / "model", "float32")
    tuned = load_model(golden_dir / "model", "float32")
    with torch.no_grad():
        tuned.network.get_input_embeddings().weight.mul_(5)
    labeller = Labeller(model, load_adapter(golden_dir / "adapters/scalar_affine_norm.safetensors"))
    plan = plan_reading(model, "owl", [1], [-1], chat="none")
    given = []
    monkeypatch.setattr(controls, "random_vectors", lambda states: given.append(states) or states)
    random_control(labeller, plan, max_new_tokens=6, source=tuned)
    random_control(labeller, plan, max_new_tokens=6)
    ids = torch.tensor([[token.id for token in plan.tokens]])
    expected = [capture(one, ids, plan.layers)[0, :, -1] for one in (tuned, model)]
    torch.testing.assert_close(given, expected)
    assert expected[0].norm() > 1.2 * expected[1].norm()  # so that one is not taken for the other


def test_the_command_ends_with_what_they_mean_and_keeps_them(run, tmp_path):
    content, shown = run()
    assert len(content["random"]["gains"]) == 32
    mean = sum(content["random"]["gains"]) / 32
    assert f"random directions {mean:.2f}, a difference of" in shown
    assert "(33 and 32, 95 % interval)" in shown
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


def test_gains_are_compared_where_nothing_is_withheld_else_what_is_shown():
    plan = ReadingPlan("ab", "none", (PromptToken(0, 0, "a", False),), tuple(range(20)), (0,))

    def cell(layer, gain, withheld=None):
        return Cell(layer, 0, "x", "x", -1.0, 1, True, gain, None, withheld)

    def sentence(cells, shown=0):
        return control_sentence(Reading(plan, tuple(cells), RandomControl((1.0, 1.1) * 16, shown)))

    found = sentence(cell(i, 3 + i / 10) for i in range(20))
    assert found.startswith("Cells gain 3.95 nats per token, random directions 1.05")
    assert found.endswith("(20 and 32, 95 % interval): the labels depend on their vectors.")
    assert sentence(cell(i, 1 + i % 2 / 10) for i in range(20)).endswith(
        ": this does not show that the labels depend on their vectors."
    )
    # Most tokens hold no concept, with a gain of 0: the labels shown are what counts.
    some = [cell(i, 0.0, "no concept" if i > 7 else None) for i in range(20)]
    assert sentence(some) == (
        "8 of 20 cells show a label, and 0 of 32 random directions, a difference of 40 points "
        "[19, 61] (95 % interval): the labels shown depend on the text."
    )
    assert sentence(some, shown=12).endswith(
        ": this does not show that the labels depend on the text."
    )
    assert control_sentence(Reading(plan, tuple(some))) is None
