from __future__ import annotations

import json
import math

import numpy as np
import pytest

from selfie_adapters.errors import DataError, MissingFileError
from selfie_adapters.labelling.confidence import (
    Confidence,
    Evidence,
    beside,
    fit_confidence,
    reliability,
)
from selfie_adapters.labelling.labeller import Label


def test_the_probability_is_the_logistic_function_of_weighted_features():
    confidence = Confidence({"gain": 2.0, "log_prob": 0.5}, -1.0, threshold=0.7)
    expected = 1 / (1 + math.exp(-(-1.0 + 2.0 * 1.5 + 0.5 * -0.8)))
    assert confidence.score(1.5, -0.8) == pytest.approx(expected)
    label = Label("owl", 'owl"', 1.0, 0, 7, log_prob=-1.6, tokens=2, ended=True, zero_log_prob=-4.6)
    assert confidence.of(label) == pytest.approx(expected)
    assert confidence.believes(0.7)
    assert not confidence.believes(0.69)
    assert confidence.score(1e9, 0.0) == pytest.approx(1.0)
    assert confidence.score(-1e9, 0.0) == pytest.approx(0.0, abs=1e-20)


def drawn(seed: int, count: int) -> tuple[Evidence, np.ndarray]:
    """Labels whose truth follows a known law: p = 1 / (1 + exp(-(2·gain + log_prob - 3)))."""
    random = np.random.default_rng(seed)
    gain, log_prob = random.normal(1.5, 1.0, count), random.normal(-1.0, 0.5, count)
    p = 1 / (1 + np.exp(-(2 * gain + log_prob - 3)))
    values = np.stack([gain, log_prob, np.ones(count)], axis=1)
    return Evidence(values), random.random(count) < p


def meaningless(count: int = 400) -> dict[str, Evidence]:
    random = np.random.default_rng(9)
    values = [random.normal(0.2, 0.6, count), random.normal(-1.5, 0.5, count), np.ones(count)]
    return {"random": Evidence(np.stack(values, axis=1))}


def test_a_known_law_is_found_again():
    evidence, right = drawn(0, 8000)
    fitted = fit_confidence(evidence, right, meaningless(), precision=0.7)
    assert fitted.weights["gain"] == pytest.approx(2.0, abs=0.15)
    assert fitted.weights["log_prob"] == pytest.approx(1.0, abs=0.2)
    assert fitted.intercept == pytest.approx(-3.0, abs=0.25)
    assert "agreement" not in fitted.weights  # it never varied
    # on labels it has not seen, each bin is right as often as it says
    unseen, truth = drawn(1, 8000)
    p = np.array([fitted.score(*row) for row in unseen.values])
    for row in reliability(p, truth):
        assert row["right"] == pytest.approx(row["predicted"], abs=0.06)


@pytest.mark.parametrize("precision", [0.6, 0.8, 0.9])
def test_the_threshold_keeps_the_precision_and_the_control_rate_on_new_labels(precision):
    evidence, right = drawn(2, 4000)
    fitted = fit_confidence(evidence, right, meaningless(), precision, control_rate=0.05)
    unseen, truth = drawn(3, 4000)
    shown = np.array([fitted.believes(fitted.score(*row)) for row in unseen.values])
    assert truth[shown].mean() == pytest.approx(precision, abs=0.04)
    assert fitted.measured["shown_and_right"] / fitted.measured["shown"] >= precision
    controls = meaningless()["random"].values
    assert np.mean([fitted.believes(fitted.score(*row)) for row in controls]) <= 0.05


def test_controls_that_look_real_push_the_threshold_up():
    evidence, right = drawn(4, 2000)
    few = fit_confidence(evidence, right, {}, precision=0.3)
    lookalikes = {"random": Evidence(evidence.values[:500])}
    many = fit_confidence(evidence, right, lookalikes, precision=0.3, control_rate=0.05)
    assert many.threshold > few.threshold + 0.2
    assert many.measured["controls"]["random"] == {"vectors": 500, "shown": 25}


def test_what_cannot_be_had_is_refused_with_the_best_there_is():
    evidence, _ = drawn(5, 1000)
    coin = np.random.default_rng(0).random(1000) < 0.3  # truth that nothing predicts
    with pytest.raises(DataError, match=r"no threshold makes 90% .* the best reaches \d\d%"):
        fit_confidence(evidence, coin, meaningless(), precision=0.9)
    with pytest.raises(DataError, match="3 of 1000 labels are right; at least 10 right and 10"):
        fit_confidence(evidence, np.arange(1000) < 3, {}, precision=0.9)


def test_reliability_bins_by_hand():
    p = np.array([0.9, 0.1, 0.2, 0.8])
    right = np.array([True, False, True, True])
    low, high = reliability(p, right, bins=2)
    assert low == {"predicted": pytest.approx(0.15), "right": 0.5, "labels": 2}
    assert high == {"predicted": pytest.approx(0.85), "right": 1.0, "labels": 2}


def test_a_file_gives_back_what_was_saved(tmp_path):
    path = beside(tmp_path / "adapter_final.safetensors")
    assert path == tmp_path / "adapter_final.confidence.json"
    saved = Confidence({"gain": 1.0}, 0.5, 0.6, {"scales": [1.0]}, {"vectors": 3})
    saved.save(path)
    loaded = Confidence.load(path)
    assert loaded == saved
    assert loaded.other_drawing({"scales": [1.0]}) is None
    assert loaded.other_drawing({"scales": [2.0]}) == "scales [1.0], not [2.0]"


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"weights": {"gain": "x"}, "intercept": 0, "threshold": 1}']
    + [json.dumps({"weights": w, "intercept": 0, "threshold": 1}) for w in (None, {"gian": 1.0})]
    + ['{"weights": {"gain": NaN}, "intercept": 0, "threshold": 1}']
    + ['{"weights": {"gain": 1' + "0" * 400 + '}, "intercept": 0, "threshold": 1}']
    + ["[" * 100_000],
)
def test_another_file_is_refused(content, tmp_path):
    path = tmp_path / "c.json"
    path.write_text(content)
    with pytest.raises(DataError, match=r"c\.json[:,]"):
        Confidence.load(path)


def test_a_missing_file_says_so(tmp_path):
    with pytest.raises(MissingFileError):
        Confidence.load(tmp_path / "none.json")
