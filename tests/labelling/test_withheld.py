"""No concept and too little confidence: withheld in cells, rows and controls alike."""

from __future__ import annotations

import pytest
import torch

from selfie_adapters.adapters import load_adapter
from selfie_adapters.inference.logit_lens import lens_words
from selfie_adapters.labelling import Confidence, Labeller
from selfie_adapters.labelling.choosing import is_no_concept, judge, no_concept_label
from selfie_adapters.labelling.confidence import PlaceCalibration
from selfie_adapters.labelling.label import Label
from selfie_adapters.reading.plan import plan_reading
from selfie_adapters.reading.read import read_cells

SURE = Confidence({}, 2.0, 0.5)
UNSURE = Confidence({}, -2.0, 0.5)


def label(text):
    return Label(text, text + '"', 1.0, 0, 7, -1.0, 2, True, zero_log_prob=-4.0)


@pytest.mark.parametrize(
    ("text", "calibration", "withheld"),
    [
        ("owl", None, None),
        ("owl", SURE, None),
        ("owl", UNSURE, "below threshold"),
        (" No  Thing", SURE, "no concept"),
        ("no thing", UNSURE, "no concept"),
        ("no things", SURE, None),
        ("", None, None),
    ],
)
def test_a_label_is_withheld_for_one_of_two_reasons(text, calibration, withheld):
    found = judge(label(text), calibration, "no thing")
    assert found.withheld == withheld
    # "no concept" is no guess about the vector's name: it has no probability of being right
    assert (found.confidence is None) == (calibration is None or withheld == "no concept")


def test_without_a_label_for_it_nothing_means_no_concept():
    assert not is_no_concept("nothing", None)
    assert judge(label("nothing"), None, None).withheld is None


@pytest.fixture
def adapter(golden_dir):
    return load_adapter(golden_dir / "adapters/scalar_affine_norm.safetensors")


def test_cells_that_answer_no_concept_are_silent(model, adapter):
    plan = plan_reading(model, "an owl", layers=[1], chat="none")
    labeller = Labeller(model, adapter)
    (plain,) = read_cells(labeller, plan, max_new_tokens=5)
    assert not any(cell.withheld for cell in plain)
    adapter.binding = labeller.binding.model_copy(update={"no_concept": plain[2].label.upper()})
    assert no_concept_label(adapter) == plain[2].label.upper()
    (cells,) = read_cells(Labeller(model, adapter), plan, confidence=SURE, max_new_tokens=5)
    for cell, before in zip(cells, plain, strict=True):
        silent = before.label.casefold() == plain[2].label.casefold()
        assert cell.label == before.label  # kept, whether it is shown or not
        assert cell.withheld == ("no concept" if silent else None)
        assert (cell.confidence is None) == silent


def test_each_cell_is_judged_by_its_own_layer_and_kind(model, adapter):
    plan = plan_reading(model, "owl", layers=[0, 1], chat="none")
    places = (PlaceCalibration({}, 2.0, 0.5, 1, "-1"), PlaceCalibration({}, 2.0, None, 1, "name"))
    trust = Confidence({}, 0.0, 0.9, places=places)
    (cells,) = read_cells(Labeller(model, adapter), plan, confidence=trust, max_new_tokens=5)
    shown = {(cell.layer, cell.position) for cell in cells if cell.withheld is None}
    assert shown == {(1, 2)}
    sure = {(cell.layer, cell.position): cell.confidence for cell in cells}
    assert sure[1, 2] == sure[1, 0] == pytest.approx(1 / (1 + torch.e**-2))
    assert sure[0, 2] == pytest.approx(0.5)


def test_the_lens_reads_the_very_states_that_are_labelled(model, adapter):
    plan = plan_reading(model, "owl", layers=[0, 2], chat="none")
    (cells,) = read_cells(Labeller(model, adapter), plan, lens=True, max_new_tokens=5)
    with torch.no_grad():
        ids = torch.tensor([[token.id for token in plan.tokens]])
        hidden = model.network(ids, output_hidden_states=True, use_cache=False).hidden_states[1]
        last = model.network(ids, use_cache=False).logits[0].argmax(dim=-1)
    first = [cell.lens for cell in cells if cell.layer == 0]
    assert first == lens_words(model, hidden[0])
    own = [model.tokenizer.decode([token]).strip() for token in last]
    assert [cell.lens for cell in cells if cell.layer == 2] == own
    (plain,) = read_cells(Labeller(model, adapter), plan, max_new_tokens=5)
    assert all(cell.lens is None for cell in plain)
