from __future__ import annotations

import json
import math

import numpy as np
import pytest

from selfie_adapters.config.labelling import LabelSettings
from selfie_adapters.errors import DataError, MissingFileError
from selfie_adapters.labelling.confidence import (
    Calibration,
    Confidence,
    PlaceCalibration,
    confidence_file,
)
from selfie_adapters.labelling.fitting import (
    Evidence,
    Fitted,
    Sample,
    fit_calibration,
    fit_confidence,
    own_or_common,
)
from selfie_adapters.labelling.label import Label
from selfie_adapters.statistics import quality, reliability, wilson_bounds


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
    return _heard(values), random.random(count) < p


def _heard(values) -> Evidence:
    return Evidence(values, np.zeros(len(values), dtype=bool))


def meaningless(count: int = 400) -> dict[str, Evidence]:
    random = np.random.default_rng(9)
    values = [random.normal(0.2, 0.6, count), random.normal(-1.5, 0.5, count), np.ones(count)]
    return {"random": _heard(np.stack(values, axis=1))}


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
    assert precision <= truth[shown].mean() <= precision + 0.08
    assert fitted.measured["shown_and_right"] / fitted.measured["shown"] >= precision
    controls = meaningless()["random"].values
    assert np.mean([fitted.believes(fitted.score(*row)) for row in controls]) <= 0.05


def test_controls_that_look_real_push_the_threshold_up():
    evidence, right = drawn(4, 2000)
    few = fit_confidence(evidence, right, {}, precision=0.3)
    lookalikes = {"random": _heard(evidence.values[:500])}
    many = fit_confidence(evidence, right, lookalikes, precision=0.3, control_rate=0.05)
    assert many.threshold > few.threshold + 0.2
    # 15 of 500 is the most whose 95 % Wilson interval ends below 5 %
    assert many.measured["controls"]["random"] == {"vectors": 500, "shown": 15}


def test_what_cannot_be_had_is_refused_with_the_best_there_is():
    evidence, _ = drawn(5, 1000)
    coin = np.random.default_rng(0).random(1000) < 0.3  # truth that nothing predicts
    with pytest.raises(DataError, match=r"no threshold makes 90% .* the best reaches \d\d%"):
        fit_confidence(evidence, coin, meaningless(), precision=0.9)
    with pytest.raises(DataError, match="3 of 1000 labels are right; at least 10 right"):
        fit_confidence(evidence, np.arange(1000) < 3, {}, precision=0.9)


def test_wilson_bounds_by_their_definition():
    """The ends are the shares p whose distance from the found share is 1.96 standard errors."""
    successes, counts = np.array([0.0, 9.0, 40.0]), np.array([30.0, 10.0, 40.0])
    for low, high, k, n in zip(*wilson_bounds(successes, counts), successes, counts, strict=True):
        for p in (low, high):
            assert abs(k / n - p) == pytest.approx(1.959964 * math.sqrt(p * (1 - p) / n), abs=1e-6)
        assert low <= k / n <= high


@pytest.mark.parametrize(("count", "precision"), [(150, 0.6), (400, 0.8), (1000, 0.9)])
def test_the_precision_asked_for_is_kept_on_new_labels_in_nearly_every_fit(count, precision):
    """Sixty fits: the true precision is lower in at most 5 %."""
    missed = shown_somewhere = 0
    for seed in range(60):
        evidence, right = drawn(seed, count)
        sample = Sample(evidence, right, np.zeros(count, dtype=bool), {})
        fitted = fit_calibration(sample, precision, 0.05).calibration
        if fitted.threshold is None:
            continue
        shown_somewhere += 1
        fresh, truth = drawn(10_000 + seed, 20_000)
        weights = [fitted.weights.get(name, 0.0) for name in ("gain", "log_prob", "agreement")]
        p = 1 / (1 + np.exp(-(fitted.intercept + fresh.values @ weights)))
        missed += bool(truth[p >= fitted.threshold].mean() < precision)
    assert shown_somewhere >= 20
    assert missed <= 3


def test_the_control_rate_is_kept_on_new_controls_in_nearly_every_fit():
    missed = 0
    for seed in range(60):
        evidence, right = drawn(seed, 600)
        random = np.random.default_rng(900 + seed)
        values = random.normal((1.2, -1.0, 1.0), (1.0, 0.5, 0.0), (200, 3))
        controls = {"random": _heard(values)}
        sample = Sample(evidence, right, np.zeros(600, dtype=bool), controls)
        fitted = fit_calibration(sample, 0.3, 0.05).calibration
        assert fitted.threshold is not None
        fresh = random.normal((1.2, -1.0, 1.0), (1.0, 0.5, 0.0), (5000, 3))
        weights = [fitted.weights.get(name, 0.0) for name in ("gain", "log_prob", "agreement")]
        p = 1 / (1 + np.exp(-(fitted.intercept + fresh @ weights)))
        missed += bool((p >= fitted.threshold).mean() > 0.05)
    assert missed <= 3


def test_silent_labels_are_neither_fitted_on_nor_shown():
    evidence, right = drawn(6, 1000)
    silent = np.arange(1000) % 4 == 0
    values = np.where(silent[:, None], 99.0, evidence.values)  # what they gain does not matter
    known = Sample(Evidence(values, silent), right, np.zeros(1000, dtype=bool), {})
    found = fit_calibration(known, 0.6, 0.05)
    alone = Sample(evidence.only(~silent), right[~silent], np.zeros(750, dtype=bool), {})
    expected = fit_calibration(alone, 0.6, 0.05)
    assert found.calibration == expected.calibration
    assert found.measured["no_concept"] == 250
    assert found.measured["vectors"] == 1000
    assert found.measured["shown"] == expected.measured["shown"]


def test_vectors_without_a_concept_are_wrong_whatever_is_said_of_them():
    """With as many of them as of the others and nothing to tell them apart, half is the best."""
    evidence, _ = drawn(7, 800)
    empty = np.arange(800) % 2 == 0
    found = fit_calibration(Sample(evidence, ~empty, empty, {}), 0.6, 1.0)
    assert found.calibration.threshold is None
    assert found.best < 0.6
    assert found.measured["controls"]["no concept"] == {"vectors": 400, "shown": 0}
    apart = np.where(empty[:, None], evidence.values - 9.0, evidence.values)
    found = fit_calibration(Sample(_heard(apart), ~empty, empty, {}), 0.6, 0.05)
    assert found.calibration.threshold is not None
    assert found.measured["shown_and_right"] > 350


def test_a_place_with_few_labels_takes_the_common_threshold_unless_they_contradict_it():
    common = Calibration({"gain": 5.0}, 0.0, 0.5)
    silent = Fitted(Calibration({}, 0.0, None), {"vectors": 40}, 0.0)
    gains = np.where(np.arange(40) < 20, 1.0, -1.0)
    evidence = _heard(np.stack([gains, gains, np.ones(40)], axis=1))
    empty = np.zeros(40, dtype=bool)

    def kept(right, evidence=evidence, empty=empty):
        return own_or_common(Sample(evidence, right, empty, {}), silent, common, 0.8)

    found = kept(np.arange(40) < 14)  # 14 of the 20 shown: up to 86 % may be right
    assert found.calibration is common
    assert (found.measured["shown"], found.measured["shown_and_right"]) == (20, 14)
    assert found.measured["common"] is True
    assert kept(np.arange(40) < 8) is silent  # 8 of 20: at most 61 %
    many = evidence.only(np.arange(120) % 40)
    assert kept(np.arange(120) % 40 < 14, many, np.zeros(120, dtype=bool)) is silent


def test_a_place_with_hardly_a_right_label_shows_nothing_and_says_how_likely_one_is():
    evidence, _ = drawn(8, 300)
    few = Sample(evidence, np.arange(300) < 6, np.zeros(300, dtype=bool), {})
    found = fit_calibration(few, 0.6, 0.05).calibration
    assert found.threshold is None
    assert not found.believes(1.0)
    assert found.score(3.0, -0.1) == pytest.approx(6.5 / 301)


def test_labels_that_are_nearly_all_right_are_all_shown():
    evidence, _ = drawn(8, 300)
    most = Sample(evidence, np.arange(300) >= 6, np.zeros(300, dtype=bool), {})
    found = fit_calibration(most, 0.9, 0.05).calibration
    assert found.believes(found.score(-5.0, -9.0))


def test_the_quality_of_probabilities_by_hand():
    p, right = np.array([0.9, 0.6, 0.6, 0.2]), np.array([True, True, False, False])
    found = quality(p, right)
    assert found["auroc"] == pytest.approx((1 + 1 + 1 + 0.5) / 4)  # of four pairs, one tie
    assert found["brier"] == pytest.approx((0.01 + 0.16 + 0.36 + 0.04) / 4)
    stated = [0.9, 0.6, 0.4, 0.8]
    assert found["nll"] == pytest.approx(-sum(map(math.log, stated)) / 4)
    assert quality(p[:2], right[:2])["auroc"] is None
    assert quality(p[:0], right[:0]) == {}


def test_each_place_has_its_own_calibration_and_others_the_common_one(tmp_path):
    here = PlaceCalibration({"gain": 1.0}, 0.0, 0.9, 12, "-1", {"right": 3})
    word = PlaceCalibration({"gain": 2.0}, 0.5, None, 12, "name")
    alone = PlaceCalibration({}, 0.1, 0.3, 20, "-2")
    saved = Confidence({"gain": 3.0}, -1.0, 0.5, {"samples": 1}, {}, (here, word, alone))
    saved.save(tmp_path / "c.json")
    loaded = Confidence.load(tmp_path / "c.json")
    assert loaded == saved
    assert loaded.at(12, "-1") == here
    assert loaded.at(12, "name") == word
    assert not loaded.at(12, "name").believes(1.0)  # no threshold: nothing is shown
    assert loaded.at(20, None) == alone  # the only kind of that layer
    for place in ((12, None), (12, "-2"), (13, "-1"), (None, None)):
        assert loaded.at(*place) is loaded
    # token 9 of 10 is the last one; the others are inside the text
    assert loaded.at_token(12, 9, 10) == here
    assert loaded.at_token(12, 4, 10) == word
    assert loaded.at_token(20, 4, 10) == alone
    assert loaded.at_token(13, 9, 10) is loaded


def test_a_file_without_places_is_written_as_before_there_were_any(tmp_path):
    Confidence({"gain": 1.0}, 0.5, 0.6, {"scales": [1.0]}, {"vectors": 3}).save(tmp_path / "c.json")
    assert json.loads((tmp_path / "c.json").read_text()) == {
        "weights": {"gain": 1.0},
        "intercept": 0.5,
        "threshold": 0.6,
        "settings": {"scales": [1.0]},
        "measured": {"vectors": 3},
    }


def test_reliability_bins_by_hand():
    p = np.array([0.9, 0.1, 0.2, 0.8])
    right = np.array([True, False, True, True])
    low, high = reliability(p, right, bins=2)
    assert low == {"predicted": pytest.approx(0.15), "right": 0.5, "labels": 2}
    assert high == {"predicted": pytest.approx(0.85), "right": 1.0, "labels": 2}


def test_a_file_gives_back_what_was_saved(tmp_path):
    path = confidence_file(tmp_path / "adapter_final.safetensors")
    assert path == tmp_path / "adapter_final.confidence.json"
    saved = Confidence({"gain": 1.0}, 0.5, 0.6, {"scales": [1.0]}, {"vectors": 3})
    saved.save(path)
    loaded = Confidence.load(path)
    assert loaded == saved
    assert loaded.other_drawing({"scales": [1.0]}) is None
    assert loaded.other_drawing({"scales": [2.0]}) == "scales [1.0], not [2.0]"


def test_a_file_for_the_order_of_earlier_versions_does_not_hold_for_todays():
    def sampling(**more):
        return LabelSettings.checked(source="v", model="m", adapter="a", **more).way_of_drawing()

    best = sampling(best_of=8, temperature=0.7)
    fitted = Confidence({"gain": 1.0}, 0.5, 0.6, best)
    assert fitted.other_drawing(best) is None
    earlier = {key: value for key, value in best.items() if key != "ranking"}  # did not state it
    found = Confidence({"gain": 1.0}, 0.5, 0.6, earlier).other_drawing(best)
    assert found == "ranking 'gain', not 'likelihood'"
    # The best by what it explains is neither; one greedy label needs no order.
    assert "explained" in str(
        fitted.other_drawing(sampling(best_of=8, temperature=0.7, concepts=1))
    )
    assert "ranking" not in sampling()


def test_what_agreement_adds_is_measured_where_it_varies():
    """Truth that follows agreement alone: without it the labels are not told apart."""
    evidence, _ = drawn(7, 2000)
    values = evidence.values.copy()
    values[:, 2] = np.random.default_rng(1).integers(1, 9, 2000) / 8
    right = np.random.default_rng(2).random(2000) < values[:, 2]
    sample = Sample(_heard(values), right, np.zeros(2000, dtype=bool), {})
    measured = fit_calibration(sample, 0.6, 0.05).measured
    assert measured["auroc"] > 0.75
    others = measured["without_agreement"]
    assert sorted(others) == ["auroc", "ece", "nll"]
    assert others["auroc"] == pytest.approx(0.5, abs=0.05)
    assert others["nll"] > measured["nll"] + 0.05
    same = Sample(evidence, right, np.zeros(2000, dtype=bool), {})
    assert "without_agreement" not in fit_calibration(same, 0.6, 0.05).measured


PLACE = {"weights": {}, "intercept": 0, "threshold": None, "layer": 3, "position": "-1"}
PLACES = [{}, [3], [{"layer": 3}], [PLACE, PLACE], [{**PLACE, "layer": "3"}]]
PLACES += [[{**PLACE, "position": -1}], [{**PLACE, "weights": {"gian": 1.0}}], "x", None]


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"weights": {"gain": "x"}, "intercept": 0, "threshold": 1}']
    + [json.dumps({"weights": w, "intercept": 0, "threshold": 1}) for w in (None, {"gian": 1.0})]
    + ['{"weights": {"gain": NaN}, "intercept": 0, "threshold": 1}']
    + ['{"weights": {"gain": 1' + "0" * 400 + '}, "intercept": 0, "threshold": 1}']
    + ["[" * 100_000]
    + [json.dumps({"weights": {}, "intercept": 0, "threshold": 1, "places": p}) for p in PLACES],
)
def test_another_file_is_refused(content, tmp_path):
    path = tmp_path / "c.json"
    path.write_text(content)
    with pytest.raises(DataError, match=r"c\.json[:,]"):
        Confidence.load(path)


def test_a_missing_file_says_so(tmp_path):
    with pytest.raises(MissingFileError):
        Confidence.load(tmp_path / "none.json")
